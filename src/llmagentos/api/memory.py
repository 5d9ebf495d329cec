"""Long-term memory on the wire: facts, and the calls of people and of hosts."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import msgspec
from msgspec import Meta

from llmagentos.api.agents import AgentName
from llmagentos.api.client import ApiClient

MAX_FACT = 2000
FactText = Annotated[str, Meta(min_length=1, max_length=MAX_FACT)]
Tags = Annotated[list[Annotated[str, Meta(min_length=1, max_length=50)]], Meta(max_length=20)]


class Fact(msgspec.Struct, frozen=True):
    """Something that an agent remembers. Times are seconds since the epoch, UTC."""

    id: str
    agent: str
    user: str
    """Whose it is; empty for what all users of the agent share."""
    text: str
    created: float
    used: float
    """When a search last brought it."""
    tags: list[str] = []
    score: float | None = None
    """Of a search: reciprocal ranks by words and by meaning, added up."""


class NewFact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fact to remember."""

    agent: AgentName
    text: FactText
    tags: Tags = []


class RunFact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fact that a run remembers, by the call of its tool."""

    call_id: Annotated[str, Meta(min_length=1, max_length=64)]
    text: FactText
    tags: Tags = []


class RunQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run wants to know."""

    query: Annotated[str, Meta(min_length=1, max_length=4000)]


async def listing(client: ApiClient, agent: str | None = None, *, user: str | None = None) -> list[Fact]:
    """One's own facts, the newest first; an administrator may name another `user`."""
    return await client.get("/api/v1/memory", list[Fact], query={"agent": agent, "user": user})


async def search(client: ApiClient, agent: str, query: str, *, user: str | None = None, limit: int = 5) -> list[Fact]:
    """What `agent` remembers that fits `query`, best first."""
    found = {"agent": agent, "query": query, "user": user, "limit": limit}
    return await client.get("/api/v1/memory", list[Fact], query=found)


async def add(client: ApiClient, agent: str, text: str, *, tags: list[str] | None = None) -> Fact:
    """Have `agent` remember `text` for the caller."""
    return await client.post("/api/v1/memory", NewFact(agent, text, tags or []), Fact)


async def forget(client: ApiClient, fact: str, *, user: str | None = None) -> None:
    """Forget one fact. Raises `NotFound`."""
    await client.delete(f"/api/v1/memory/{quote(fact, safe='')}" + (f"?user={quote(user, safe='')}" if user else ""))


async def forget_all(client: ApiClient, agent: str, *, user: str | None = None) -> None:
    """Forget all that `agent` knows of the caller, or of `user`."""
    more = f"&user={quote(user, safe='')}" if user else ""
    await client.delete(f"/api/v1/memory?agent={quote(agent, safe='')}{more}")


async def remember(client: ApiClient, run: str, fact: RunFact) -> Fact:
    """For the host of `run`: remember for who asked for it."""
    return await client.post(f"/api/v1/runs/{run}/memory", fact, Fact)


async def recall(client: ApiClient, run: str, query: str) -> list[Fact]:
    """For the host of `run`: what fits `query`."""
    return await client.post(f"/api/v1/runs/{run}/memory/search", RunQuery(query), list[Fact])

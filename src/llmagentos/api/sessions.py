"""Sessions on the wire: conversations of one caller with one agent."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from llmagentos.api.client import ApiClient
from llmagentos.api.runs import Turn


class SessionInfo(msgspec.Struct, frozen=True):
    """A session in a list. Times are seconds since the epoch, UTC."""

    name: str
    agent: str
    user: str
    created: float
    used: float
    """When its last request came."""
    runs: int
    busy: bool = False
    """Whether its last request has not been answered yet."""


class SessionDetail(msgspec.Struct, frozen=True):
    """What the next run of a session would know."""

    name: str
    agent: str
    user: str
    summary: str
    """What stands for the older part; empty while all turns are whole."""
    turns: list[Turn]


async def listing(client: ApiClient, *, agent: str | None = None, everybody: bool = False) -> list[SessionInfo]:
    """One's own sessions, the last used first; an administrator may see everybody's."""
    query: dict[str, Any] = {"agent": agent, "all": int(everybody)}
    return await client.get("/api/v1/sessions", list[SessionInfo], query=query)


async def show(client: ApiClient, agent: str, name: str, *, user: str | None = None) -> SessionDetail:
    """What is remembered in a session. Raises `NotFound`."""
    return await client.get(_path(agent, name), SessionDetail, query={"user": user})


async def delete(client: ApiClient, agent: str, name: str, *, user: str | None = None) -> None:
    """Delete a session and its runs. Raises `NotFound`, or `Conflict` while it works on a request."""
    await client.delete(_path(agent, name) + (f"?user={quote(user, safe='')}" if user else ""))


def _path(agent: str, name: str) -> str:
    return f"/api/v1/sessions/{quote(agent, safe='')}/{quote(name, safe='')}"

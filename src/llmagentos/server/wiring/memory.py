"""Long-term memory of agents and sessions: storage, embeddings through the gate, routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from llmagentos.agents.ledger import Ledger
from llmagentos.agents.memory import LongTerm, Memory, Scope
from llmagentos.agents.memory_tools import RunMemory
from llmagentos.agents.sessions import caller_of
from llmagentos.agents.wire import EMBEDDING_MODEL
from llmagentos.api.agents import AgentSpec
from llmagentos.api.llm import EmbeddingRequest
from llmagentos.api.memory import Fact, RunFact
from llmagentos.core.errors import InvalidInput, NotFound
from llmagentos.llm.gateway import Gateway
from llmagentos.security.identity import Identity
from llmagentos.server.routes import memory, sessions
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.agents import AgentRecords
from llmagentos.storage.memory import FactRecords
from llmagentos.storage.sessions import SessionRecords

EMBED_S = 20.0
"""Longest wait for a vector: without it words alone are searched."""
SpecOf = Callable[[str, int | None], Awaitable[AgentSpec | None]]
"""An agent's version, or the one in force."""


def wire(
    base: Foundation, parts: Parts, gateway: Gateway, caller: Identity, ledger: Ledger, agents: AgentRecords
) -> Memories:
    """`caller` asks for the embeddings."""
    records = FactRecords(base.database, base.clock)

    async def embed(texts: Sequence[str], kind: Literal["query", "passage"], run: str | None) -> list[list[float]]:
        request = EmbeddingRequest(list(texts), EMBEDDING_MODEL, input_type=kind)
        found = await gateway.embed(request, caller, run_id=run, timeout=EMBED_S)
        return [cast("list[float]", vector.embedding) for vector in found.data]

    async def spec_of(name: str, version: int | None) -> AgentSpec | None:
        record = await (agents.current(name) if version is None else agents.version(name, version))
        return record.spec if record is not None else None

    async def scope_of(agent: str, user: str) -> Scope:
        return _scope(await spec_of(agent, None), agent, user)

    known = LongTerm(records, embed, base.clock)
    of_runs = OfRuns(known, ledger, spec_of)
    parts.start.append(records.begin)
    parts.prune.append(records.prune)
    parts.endpoints += memory.endpoints(records, known, of_runs, scope_of, ledger.host_of_live)
    kept = sessions.Sessions(SessionRecords(base.database), ledger.state)
    parts.endpoints += sessions.endpoints(kept)

    async def search(agent: str, user: str, query: str, limit: int) -> list[Fact]:
        return await known.recall(await scope_of(agent, user), query, limit=limit)

    return Memories(of_runs, kept, records, search)


@dataclass(frozen=True, slots=True)
class Memories:
    """What others use: the memory for the server's own host, and for the console sessions and facts."""

    of_runs: RunMemory
    sessions: sessions.Sessions
    facts: FactRecords
    search: Callable[[str, str, str, int], Awaitable[list[Fact]]]
    """Agent, user, query, how many at most."""


class OfRuns:
    """The memory of a run's agent of whoever asked for the run, or for the run that asked for it."""

    def __init__(self, memory: Memory, ledger: Ledger, spec_of: SpecOf) -> None:
        self._memory = memory
        self._ledger = ledger
        self._spec_of = spec_of

    async def remember(self, run: str, fact: RunFact) -> Fact:
        """Store a fact: the same call again is the same fact."""
        scope = await self._scope(run)
        return await self._memory.remember(scope, fact.text, fact.tags, key=f"{run}/{fact.call_id}", run=run)

    async def recall(self, run: str, query: str) -> list[Fact]:
        """What fits `query`."""
        return await self._memory.recall(await self._scope(run), query, run=run)

    async def _scope(self, run: str) -> Scope:
        request = (await self._ledger.state(run)).request
        spec = await self._spec_of(request.agent, request.version)
        return _scope(spec, request.agent, await caller_of(self._ledger.state, run))


def _scope(spec: AgentSpec | None, agent: str, user: str) -> Scope:
    if spec is None:
        raise NotFound(f"there is no agent {agent!r}", hint="`llmctl agents` lists agents")
    if not spec.memory.long_term:
        raise InvalidInput(
            f"the agent {agent!r} has no long-term memory", hint="`memory: {long_term: true}` gives it one"
        )
    return Scope(agent, "" if spec.memory.shared else user, spec.memory)

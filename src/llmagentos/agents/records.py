"""What the ledger of runs needs of storage and of agents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from llmagentos.api.agents import AgentSpec
from llmagentos.api.runs import RunEvent, RunSort, RunState, RunSummary
from llmagentos.core.errors import InvalidInput, NotFound


class Row(Protocol):
    """What storage tells of a run beside its log."""

    @property
    def id(self) -> str: ...
    @property
    def agent(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def state(self) -> RunState: ...
    @property
    def fence(self) -> int: ...
    @property
    def holder(self) -> str: ...


class Records(Protocol):
    """What the ledger needs of storage."""

    async def create(self, summary: RunSummary, host: str, events: Sequence[RunEvent]) -> None: ...
    async def append(
        self, summary: RunSummary, events: Sequence[RunEvent], *, fence: int, holder: str | None = None
    ) -> None: ...
    async def released(self, run: str, fence: int) -> None: ...
    async def row(self, run: str) -> Row | None: ...
    async def find(self, prefix: str) -> list[str]: ...
    async def claimable(self, host: str, agents: Sequence[str] | None, *, queued: int) -> Sequence[Row]: ...
    async def unended(self, *, agent: str | None = None) -> Sequence[Row]: ...
    async def children(self, run: str) -> Sequence[Row]: ...
    async def unended_count(self) -> int: ...
    async def busy(self, agent: str, session: str, by: str) -> str | None: ...
    async def highest_fence(self) -> int: ...
    async def events(self, run: str, *, after: int = 0) -> list[RunEvent]: ...
    async def newest(
        self,
        *,
        ended: bool,
        agent: str | None = None,
        session: str | None = None,
        by: str | None = None,
        state: RunState | None = None,
        sort: RunSort = RunSort.NEWEST,
        limit: int = 100,
        offset: int = 0,
        before: str | None = None,
    ) -> list[RunSummary]: ...


class Agent(Protocol):
    """The agent that a run is for."""

    @property
    def spec(self) -> AgentSpec: ...
    @property
    def version(self) -> int: ...
    @property
    def host(self) -> str: ...


SpecOf = Callable[[str, int], Any]
"""`await spec_of(agent, version)` -> AgentSpec, or None when the agent is gone."""


def the_one(prefix: str, found: Sequence[str]) -> str:
    """The run of those that were `found` that `prefix` stands for. Raises `NotFound` or `InvalidInput`."""
    if prefix in found:
        return prefix
    if not found:
        raise NotFound(f"there is no run {prefix!r}", hint="`llmctl ps -a` lists runs")
    if len(found) > 1:
        raise InvalidInput(f"several runs begin with {prefix!r}", hint=f"e.g. {', '.join(found[:2])}: type more")
    return found[0]

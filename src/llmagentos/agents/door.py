"""The agents as other protocols reach them (MCP, A2A, AG-UI): who may, asked, followed, looked at, stopped.

Those who may not read all runs see only their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress

from llmagentos.agents.control import Control
from llmagentos.agents.ledger import Ledger
from llmagentos.agents.records import Agent
from llmagentos.api.runs import MAX_INPUT, Run, RunDelta, RunEvent, RunState, RunSummary
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from llmagentos.security.identity import Identity, Permission

AgentOf = Callable[[str], Awaitable[Agent]]
AllAgents = Callable[[], Awaitable[Sequence[Agent]]]


class Door:
    """Runs of `ledger`, for agents that `agent_of` and `agents` know."""

    def __init__(self, ledger: Ledger, control: Control, agent_of: AgentOf, agents: AllAgents) -> None:
        self._ledger = ledger
        self._control = control
        self.agent = agent_of
        self.agents = agents

    async def ask(
        self, agent: str, text: str, identity: Identity, *, session: str | None = None, run: str | None = None
    ) -> Run:
        """A new run, or the one with the id `run` that the same caller began before.

        Raises `Forbidden`, `NotFound`, `InvalidInput`, `Conflict` or `TooManyRequests`.
        """
        require(identity, Permission.RUNS_WRITE)
        if not text.strip() or len(text) > MAX_INPUT:
            raise InvalidInput(f"the request must have 1 to {MAX_INPUT} characters, not {len(text)}")
        if run is not None:
            with suppress(NotFound):  # else it is begun now
                return await self.run(run, identity, agent=agent)
        wanted = await self.agent(agent)
        try:
            made = await self._ledger.create(wanted, text, by=str(identity), session=session, run=run)
        except Conflict:  # the same was asked at the same time, and is the run that the session works on
            if run is not None:
                with suppress(NotFound):
                    return await self.run(run, identity, agent=agent)
            raise
        return await self._ledger.get(made.id, viewer=str(identity))

    async def run(self, run: str, identity: Identity, *, agent: str | None = None) -> Run:
        """A run, of `agent`. Raises `NotFound`, also for a run of somebody else's."""
        found = await self._ledger.get(run, viewer=str(identity))
        own = found.created_by == str(identity)
        if not (own or identity.may(Permission.RUNS_CONTENT)) or agent not in (None, found.agent):
            raise NotFound(f"there is no run {run!r}")
        return found

    def follow(self, run: str, *, after: int = 0) -> AsyncIterator[RunEvent | RunDelta]:
        """Its log, live, until it has ended or the server stops."""
        return self._ledger.follow(run, after=after)

    async def ended(self, run: str, identity: Identity) -> Run:
        """The run as `identity` may see it, once it has ended or the server stops."""
        async for _ in self._ledger.follow(run):
            continue
        return await self._ledger.get(run, viewer=str(identity))

    async def stop(self, run: str, identity: Identity, *, agent: str | None = None) -> Run:
        """End it. Raises `Forbidden`, `NotFound` or `RunEnded`."""
        require(identity, Permission.RUNS_WRITE)
        found = await self.run(run, identity, agent=agent)
        return await self._control.kill(found.id, by=str(identity))

    async def listing(
        self, identity: Identity, *, agent: str | None, state: RunState | None, limit: int, offset: int
    ) -> list[RunSummary]:
        """Runs, the newest first."""
        found = await self._ledger.newest(ended=True, agent=agent, state=state, limit=limit, offset=offset)
        everything = identity.may(Permission.RUNS_CONTENT)
        return [run for run in found if everything or run.created_by == str(identity)]


def require(identity: Identity, permission: Permission) -> None:
    """Raises `Forbidden` when `identity` does not hold `permission`."""
    if not identity.may(permission):
        raise Forbidden(f"{identity} may not do this: it needs the permission {permission.value}")

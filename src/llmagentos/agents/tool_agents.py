"""Other agents as tools: a call is a run below the run that calls.

The run's id comes from the call's, so a call that is made again after a crash finds the run that it began and
waits on. What the run spends, and that it is paused and killed with the run above it, is the ledger's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from llmagentos.agents.control import Control
from llmagentos.agents.following import is_end
from llmagentos.agents.ledger import Ledger
from llmagentos.agents.log import Log
from llmagentos.agents.records import Agent, Records
from llmagentos.agents.sessions import caller_of
from llmagentos.agents.slots import lent
from llmagentos.agents.states import RunEnded, RunPaused
from llmagentos.agents.tools import CalledBy, Tool, ToolSuspended
from llmagentos.api.agents import ToolUse
from llmagentos.api.runs import MAX_INPUT, RunEvent, RunState
from llmagentos.core import log
from llmagentos.core.errors import DeadlineExceeded, InvalidInput, NotFound, ServiceError, TooManyRequests
from llmagentos.core.ids import id_of

MOST_AT_ONCE = 16
"""Runs that one run may have below it at the same time."""
_LOOK_S = 0.5
PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "request": {
            "type": "string",
            "minLength": 1,
            "description": "The whole request: the other agent knows nothing of this conversation.",
        }
    },
    "required": ["request"],
    "additionalProperties": False,
}

_log = log.get(__name__)


class SubRunFailed(ServiceError):
    """The other agent's run failed or was killed."""

    code = "sub_run_failed"


class Runs:
    """What is done to runs: asked for in `ledger`, stopped by `control`."""

    def __init__(self, ledger: Ledger, control: Control, records: Records) -> None:
        self.state = ledger.state
        self.create = ledger.create
        self.children = records.children
        self.kill = control.kill
        self._ledger = ledger

    async def paused(self, run: str) -> None:
        """Return when the run is paused; never when it ends before."""
        while (state := await self._ledger.state(run)).state is not RunState.PAUSED:
            async for item in self._ledger.follow(run, after=state.seq):
                if isinstance(item, RunEvent):
                    break
            else:
                await asyncio.sleep(_LOOK_S)

    async def ended(self, run: str) -> Log:
        """The run's state once it has ended, however long that takes. Raises `NotFound`."""
        while (state := await self._ledger.state(run)).ended_at is None:
            async for item in self._ledger.follow(run, after=state.seq):
                if isinstance(item, RunEvent) and is_end(item):
                    break
            else:
                await asyncio.sleep(_LOOK_S)  # it ended just before, or the server stops and this is cancelled soon
        if state.answer is None:
            return state
        vaults = self._ledger.around.vaults
        return replace(state, answer=await vaults.handed_on(run, state.request, state.answer))


AgentOf = Callable[[str], Awaitable[Agent]]
"""The agent in force. Raises `NotFound`."""


class AgentTools:
    """Makes runs of `runs` for agents that `agent_of` knows."""

    def __init__(self, runs: Runs, agent_of: AgentOf) -> None:
        self._runs = runs
        self._agent_of = agent_of

    async def tools(self, use: ToolUse) -> Sequence[Tool]:
        """The one tool that an agent's entry stands for. Raises `NotFound`."""
        assert use.agent is not None
        spec = (await self._agent_of(use.agent)).spec
        doc = use.doc or f"Ask the agent {spec.name}. {spec.instructions}"

        async def invoke(arguments: Mapping[str, Any], timeout: float, by: CalledBy) -> Any:
            return await self._ask(spec.name, str(arguments.get("request", "")), timeout, by)

        name = use.name or spec.name
        # Made again it is the same run, so it may be.
        return [Tool(name, doc[:4000], PARAMETERS, True, invoke, tuple(use.examples))]

    async def _ask(self, agent: str, request: str, timeout: float, by: CalledBy) -> Any:
        if not request.strip() or len(request) > MAX_INPUT:
            raise InvalidInput(f"the request must have 1 to {MAX_INPUT} characters, not {len(request)}")
        run = id_of("sub-run", by.run, by.call_id)
        try:
            # A little before the caller's own limit, so that the run is not left behind.
            async with asyncio.timeout(max(0.9 * timeout, timeout - 1.0)):
                await self._begun(run, agent, request, by)
                with lent():
                    state = await self._awaited(run, by)
        except TimeoutError:
            await self._give_up(run, by)
            told = f"{agent} has not answered within {timeout:.3g} s: its run {run} was stopped"
            raise DeadlineExceeded(told) from None
        return _outcome(agent, run, state)

    async def _awaited(self, run: str, by: CalledBy) -> Log:
        """The run's state once it has ended. Raises `ToolSuspended` when the run that asked is paused: time stands."""
        ended, paused = asyncio.create_task(self._runs.ended(run)), asyncio.create_task(self._runs.paused(by.run))
        try:
            await asyncio.wait({ended, paused}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                raise ToolSuspended(f"the run {by.run} was paused")
            return await ended
        finally:
            for task in (ended, paused):
                task.cancel()
            await asyncio.gather(ended, paused, return_exceptions=True)

    async def _begun(self, run: str, agent: str, request: str, by: CalledBy) -> None:
        """The run, unless it was begun before."""
        try:
            if (await self._runs.state(run)).request.parent != by.run:
                raise InvalidInput(f"the run {run} is not of this call")
            return
        except NotFound:
            _log.debug("asks another agent", agent=agent, sub_run=run)
        if len(await self._runs.children(by.run)) >= MOST_AT_ONCE:
            raise TooManyRequests(f"{MOST_AT_ONCE} runs are under way below this one", retry_after=5.0)
        asked = await caller_of(self._runs.state, by.run)
        try:
            await self._runs.create(await self._agent_of(agent), request, by=asked, parent=by.run, run=run)
        except RunPaused as error:
            raise ToolSuspended(error.message) from None

    async def _give_up(self, run: str, by: CalledBy) -> None:
        try:
            await self._runs.kill(run, by=f"run:{by.run}")
        except (RunEnded, NotFound) as error:
            _log.debug("nothing to stop", sub_run=run, reason=error.message)


def _outcome(agent: str, run: str, state: Log) -> Any:
    if state.state is RunState.SUCCEEDED and state.answer is not None:
        answer = state.answer
        return {"answer": answer.text, "sources": answer.sources} if answer.sources else answer.text
    if state.state is RunState.KILLED:
        raise SubRunFailed(f"the run {run} of {agent} was stopped by {state.killed_by}", run=run)
    reason = state.failure.error if state.failure is not None else "nobody knows why"
    raise SubRunFailed(f"{agent} failed: {reason}", run=run)

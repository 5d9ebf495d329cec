"""A host of agents: takes runs, carries them on, keeps their leases, and lets go of what it lost.

The same host runs in the server (for agents in YAML) and in modules (for agents in Python); what
differs is the backend it talks to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from msgspec.structs import replace

from llmagentos.agents.log import Log, fold
from llmagentos.agents.loop import Loop
from llmagentos.agents.model import Models
from llmagentos.agents.permits import permitted
from llmagentos.agents.remembering import Remembering
from llmagentos.agents.slots import Slots, lent
from llmagentos.agents.states import RunEnded
from llmagentos.agents.tools import Toolset
from llmagentos.api.hosting import Claim
from llmagentos.api.runs import Claimed, Data, Failed, RunEvent
from llmagentos.core import log, metrics, tracing
from llmagentos.core.errors import Conflict, DeadlineExceeded, LLMAgentOSError, NotFound, Unavailable
from llmagentos.core.lifecycle import Backoff

CONCURRENCY = 16
"""Runs that one host carries on at the same time."""
CLAIM_WAIT_S = 25.0
_LEAST_S = 5.0
"""For so long a run's tools are looked for even when its time is over: its answer may be all that is missing."""
_MOST_TOLD = 2000
"""Characters of a defect that stand in a log."""
_RENEWALS = 3
"""Renewals per length of a lease."""

_log = log.get(__name__)


class Backend(Protocol):
    """Where a host's runs and their logs are."""

    async def claim(self, wait: float) -> Claim | None: ...
    async def append(self, run: str, fence: int, after: int, data: Sequence[Data]) -> Sequence[RunEvent]: ...
    async def renew(self, run: str, fence: int) -> float: ...
    async def release(self, run: str, fence: int) -> None: ...


ToolsOf = Callable[[Claim], Awaitable[Toolset]]
"""The tools of a claimed run."""


class AgentHost:
    """Carries on up to `concurrency` runs of `backend` at a time."""

    def __init__(self, backend: Backend, models: Models, tools_of: ToolsOf, *, concurrency: int = CONCURRENCY) -> None:
        self._backend = backend
        self._models = Remembering(models)
        self._tools_of = tools_of
        self._slots = Slots(concurrency)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Until cancelled; then what is under way is given up for others to carry on."""
        backoff = Backoff(first=0.2, most=5.0, healthy=5.0)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                await self._slots.acquire()
                begun = loop.time()
                claim: Claim | None = None
                try:
                    claim = await self._backend.claim(CLAIM_WAIT_S)
                except LLMAgentOSError as error:  # the server is away, or refuses: say so, ask again later
                    _log.warning("no runs can be claimed", reason=error.message, hint=error.hint)
                    await asyncio.sleep(backoff.died(loop.time() - begun))
                finally:
                    if claim is None:
                        self._slots.release()
                if claim is not None:
                    task = group.create_task(self._carry_on(claim))
                    self._tasks[claim.run] = task

    def cancel(self, run: str) -> None:
        """Stop working on `run`, which has ended elsewhere."""
        if (task := self._tasks.get(run)) is not None:
            task.cancel()

    async def _carry_on(self, claim: Claim) -> None:
        try:
            with (
                self._slots.held(),
                metrics.RUNS_ACTIVE.track_inprogress(),
                log.bind(run_id=claim.run, agent=claim.agent.name),
                tracing.span(
                    f"invoke_agent {claim.agent.name}",
                    gen_ai__operation__name="invoke_agent",
                    gen_ai__agent__name=claim.agent.name,
                    llmagentos__run__id=claim.run,
                ),
            ):
                await _Carried(self._backend, claim).run(self._models, self._tools_of)
        finally:
            if self._tasks.get(claim.run) is asyncio.current_task():
                del self._tasks[claim.run]


class _Carried:
    """One claimed run."""

    def __init__(self, backend: Backend, claim: Claim) -> None:
        self._backend = backend
        self._claim = claim
        self._after = claim.events[-1].seq
        self._task: asyncio.Task[None] | None = None
        self._lost: str | None = None

    async def run(self, models: Models, tools_of: ToolsOf) -> None:
        """To its end, or until it is lost; when this task is cancelled the run is given up."""
        claim = self._claim
        _log.info("run taken", fence=claim.fence, events=len(claim.events))
        self._task = asyncio.current_task()
        renewing = asyncio.create_task(self._keep_lease())
        try:
            state = await self._work(models, tools_of)
            _log.info("run ended" if state.ended_at else "run waits", state=str(state.state), tokens=state.tokens)
        except Conflict as error:  # paused, ended or lost: whoever may have it next shall have it at once
            _log.info("run let go", reason=error.message)
            await self._let_go()
        except asyncio.CancelledError:
            if self._lost is None:
                await self._let_go()
                raise
            _log.info("run lost", reason=self._lost)
        except Exception as error:  # the loop that supervises runs: one defect must not end the host
            _log.error("defect while carrying on a run", exc_info=error)
            await self._give_up(error)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _work(self, models: Models, tools_of: ToolsOf) -> Log:
        claim = self._claim
        state = replace(fold(claim.events), attached=claim.attached)
        begun = asyncio.get_running_loop().time()
        try:
            found = await self._found(tools_of, claim.agent.limits.timeout - state.active_s)
            tools = permitted(found, claim.caller, claim.denied)
        except Conflict:
            raise
        except LLMAgentOSError as error:
            told = f"{error.message} ({error.hint})" if error.hint else error.message
            await self._add([Failed(f"a tool of {claim.agent.name} is not there: {told}", error.code)])
            return state
        state = replace(state, active_s=state.active_s + asyncio.get_running_loop().time() - begun)
        loop = Loop(claim.run, claim.agent, tools, models, self._add, values=claim.values)
        return await loop.carry_on(state, claim.events)

    async def _found(self, tools_of: ToolsOf, left: float) -> Toolset:
        """The run's tools. A run that was begun before waits for those that are away as long as its time lasts."""
        again = sum(isinstance(event.data, Claimed) for event in self._claim.events) > 1
        loop = asyncio.get_running_loop()
        end = loop.time() + max(_LEAST_S, left)
        backoff = Backoff(first=0.5, most=10.0)
        while True:
            try:
                async with asyncio.timeout_at(end):
                    return await tools_of(self._claim)
            except TimeoutError:
                raise DeadlineExceeded("whoever has it did not answer before the run's time was over") from None
            except Unavailable as error:
                wait = backoff.died(0.0)
                if not again or loop.time() + wait >= end:
                    raise
                _log.warning("waits for a tool", reason=error.message)
            with lent():
                await asyncio.sleep(wait)

    async def _add(self, data: Sequence[Data]) -> Sequence[RunEvent]:
        """Append, and again when the server was away: repeating is safe, and after a while the lease decides."""
        backoff = Backoff(first=0.2, most=2.0)
        while True:
            try:
                events = await self._backend.append(self._claim.run, self._claim.fence, self._after, data)
            except Unavailable as error:
                _log.warning("the server does not take events", reason=error.message)
                await asyncio.sleep(backoff.died(0.0))
                continue
            self._after = events[-1].seq
            return events

    async def _keep_lease(self) -> None:
        pause = self._claim.lease_s / _RENEWALS
        while True:
            await asyncio.sleep(pause)
            try:
                pause = await self._backend.renew(self._claim.run, self._claim.fence) / _RENEWALS
            except (Conflict, NotFound) as error:
                self._lost = error.message
                if self._task is not None:
                    self._task.cancel()
                return
            except LLMAgentOSError as error:
                _log.warning("lease not renewed", reason=error.message)

    async def _let_go(self) -> None:
        try:
            async with asyncio.timeout(2):
                await self._backend.release(self._claim.run, self._claim.fence)
        except (LLMAgentOSError, TimeoutError) as error:
            _log.debug("not released: the lease will run out", reason=str(error))

    async def _give_up(self, error: Exception) -> None:
        """Fail the run; when that is not taken either, nothing of it may end the other runs."""
        told = f"{type(error).__name__}: {error}"[:_MOST_TOLD]
        try:
            await self._add([Failed(f"a defect in the agent's host: {told}")])
        except (RunEnded, Conflict) as lost:
            _log.info("run lost", reason=lost.message)
        except Exception as refused:  # as above
            _log.error("the end of a run is not taken", error=str(refused)[:_MOST_TOLD])
            await self._let_go()

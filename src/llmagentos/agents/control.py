"""Control over runs: kill, pause, resume, nice, with the runs that they asked for.

Each is an event in the run's log first; then it takes effect on what is under way: calls that wait at
the gate, calls that an engine answers, the host that works on the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

from llmagentos.agents import log as runlog
from llmagentos.agents.ledger import PROGRAM, Ledger
from llmagentos.agents.log import Log
from llmagentos.agents.records import Records
from llmagentos.agents.states import InvalidTransition, RunEnded, RunPaused
from llmagentos.api.runs import Killed, Paused, Reniced, Resumed, Run, RunEvent, RunState
from llmagentos.core import log, metrics
from llmagentos.core.finishing import to_the_end

_log = log.get(__name__)


class Gate(Protocol):
    """What control needs of the gate to models."""

    def cancel_run(self, run_id: str) -> int: ...
    def put_down(self, run_id: str, *, everything: bool) -> int: ...
    def hold(self, run_id: str) -> None: ...
    def release(self, run_id: str) -> None: ...
    def renice(self, run_id: str, priority: int) -> None: ...
    def forget(self, run_id: str) -> None: ...


class Control:
    """What people and budgets do to runs. `stop(run)` has the server's own host drop a run."""

    def __init__(self, ledger: Ledger, records: Records, gate: Gate, *, stop: Callable[[str], object]) -> None:
        self._ledger = ledger
        self._records = records
        self._gate = gate
        self._stop = stop
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        ledger.on_change.append(self._changed)

    async def begin(self) -> None:
        """At the server's start: the gate knows again which runs are paused."""
        for row in await self._records.unended():
            if row.state is RunState.PAUSED:
                self._gate.hold(row.id)

    def _changed(self, run: str, state: Log, _: Sequence[RunEvent]) -> None:
        if state.ended_at is not None:
            self._gate.forget(run)

    # Kill -----------------------------------------------------------------------------------------

    async def kill(self, run: str, *, by: str) -> Run:
        """End the run and those that it asked for: stored first, then whoever works on it is told.

        Raises `RunEnded`, after what it asked for was ended all the same.
        """
        return await to_the_end(self._kill(run, by))

    async def _kill(self, run: str, by: str) -> Run:
        try:
            state = await self._ledger.note(run, Killed(by))
        except RunEnded:
            await self._kill_below(run, by)
            raise
        self._gate.cancel_run(run)
        self._stop(run)
        _log.info("run killed", run_id=run, by=by)
        await self._kill_below(run, by)
        return runlog.detail(run, state)

    async def _kill_below(self, run: str, by: str) -> None:
        for child in await self._records.children(run):
            await self._kill_if_there(child.id, by)

    async def kill_all_of(self, agent: str, *, by: str) -> int:
        """End every run of `agent`; how many."""
        return sum([await self._kill_if_there(row.id, by) for row in await self._records.unended(agent=agent)])

    async def _kill_if_there(self, run: str, by: str) -> bool:
        try:
            await self.kill(run, by=by)
        except RunEnded:
            return False
        return True

    # Pause and resume -----------------------------------------------------------------------------

    async def pause(self, run: str, *, by: str, now: bool = False, reason: str | None = None) -> Run:
        """Have the run and those that it asked for start no further call.

        Engines stop at once; what they were writing goes on when the run is resumed, or is made anew where they cannot.
        A call of a tool is finished; with `now` it is stopped too. A run that is paused already stays so. Raises
        `RunEnded`.
        """
        async with self._steering(run):
            return await self._pause(run, by, now, reason)

    async def _pause(self, run: str, by: str, now: bool, reason: str | None) -> Run:
        try:
            state = await self._ledger.note(
                run, Paused(by, now, reason), drop_lease=now and not await self._program(run)
            )
            metrics.RUNS_PAUSED.inc()
            _log.info("run paused", run_id=run, by=by, reason=reason)
        except RunPaused:
            state = await self._ledger.state(run)
        self._gate.hold(run)
        await self._put_down(run, state, now=now)
        for child in await self._records.children(run):
            if child.state is not RunState.PAUSED:
                await self._unless_late(self.pause(child.id, by=_above(run), now=now, reason=reason))
        return runlog.detail(run, state)

    async def _put_down(self, run: str, state: Log, *, now: bool) -> None:
        """Take the run off its host unless a tool is under way, or even then (`now`).

        A call of a model keeps no host busy meanwhile: the run's next host makes it again, and it goes on where it was.
        Programs, and tools that call models, keep their calls, which wait until the run is resumed.
        """
        if now or not (state.open_tools or await self._program(run)):
            stopped = self._gate.put_down(run, everything=now)
            if now or stopped:
                self._stop(run)

    async def resume(self, run: str, *, by: str) -> Run:
        """Let the run go on, and those that were paused with it. Raises `InvalidTransition` when it is not paused."""
        async with self._steering(run):
            return await self._resume(run, by)

    async def _resume(self, run: str, by: str) -> Run:
        try:
            state = await self._ledger.note(run, Resumed(by))
        except InvalidTransition:
            raise InvalidTransition(f"the run {run} is not paused", run=run) from None
        _log.info("run resumed", run_id=run, by=by)
        self._gate.release(run)
        await self._ledger.offer(run)
        for child in await self._records.children(run):
            below = await self._ledger.state(child.id)
            if below.paused is not None and below.paused.by == _above(run):
                await self._unless_late(self.resume(child.id, by=by))
        return runlog.detail(run, state)

    async def renice(self, run: str, priority: int, *, by: str) -> Run:
        """Give the run and those that it asked for another nice value: waiting calls have it at once.

        Raises `RunEnded`.
        """
        state = await self._ledger.note(run, Reniced(priority, by))
        self._gate.renice(run, priority)
        for child in await self._records.children(run):
            await self._unless_late(self.renice(child.id, priority, by=by))
        return runlog.detail(run, state)

    async def _program(self, run: str) -> bool:
        return await self._ledger.host_of(run) == PROGRAM

    async def _unless_late(self, act: Any) -> None:
        try:
            await act
        except (RunEnded, InvalidTransition) as error:  # somebody resumed it, or it ended
            _log.debug("changed meanwhile", reason=error.message)

    def _steering(self, run: str) -> asyncio.Lock:
        """One pause or resumption of a run with all below it after the other: half of both would leave some paused."""
        return self._turns.setdefault(run, asyncio.Lock())


def _above(run: str) -> str:
    """By whom a run was paused that was paused with the run that asked for it."""
    return f"run:{run}"

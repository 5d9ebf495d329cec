"""Slots of models as leases: waits for what the scheduler admits, gives back on every path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from llmagentos.core.clock import Clock
from llmagentos.core.errors import DeadlineExceeded
from llmagentos.kernel.calls import Load, Outcome, Reason, Running, Submission, Waiting
from llmagentos.kernel.scheduling import PolicyScheduler


@dataclass(slots=True)
class Slot:
    """A slot that a call got after `waited` seconds."""

    waited: float
    produced: Callable[[int], None]
    """Tells of tokens as they come, so that they are charged at once."""
    suspend: Callable[[], Awaitable[float]]
    """Gives the slot up and waits, in the call's old place, until it has one again; for how many seconds. Raises what
    `Admissions.slot` does."""
    wanted: bool = False
    """A more urgent call waits for it: `suspend` as soon as that is possible."""
    had: bool = True
    """Whether the call has the slot now."""
    outcome: Outcome | None = None
    """Set it when it is known."""


class Admissions:
    """Drives a `PolicyScheduler` of `models` in one event loop; `on_change` is told when calls come, begin or end."""

    def __init__(self, scheduler: PolicyScheduler, models: Sequence[str], clock: Clock) -> None:
        self._models = list(models)
        self._scheduler = scheduler
        self._clock = clock
        self._waiting: dict[str, asyncio.Future[float]] = {}
        self._slots: dict[str, Slot] = {}
        self._wanted: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.on_change: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def slot(self, call: Submission) -> AsyncIterator[Slot]:
        """A slot for the block.

        Raises `QueueFull`, `DeadlineExceeded` when the call's deadline passes first, or what `fail` is told.
        """
        self._scheduler.submit(call, self._clock.monotonic())
        waited = await self._turn(call.id)
        slot = Slot(waited, partial(self._scheduler.produced, call.id), partial(self._suspend, call.id))
        self._slots[call.id] = slot
        self._want()
        try:
            yield slot
        finally:
            del self._slots[call.id]
            if slot.had:
                self._end(call.id, slot.outcome)

    def load(self, model: str) -> Load:
        """How busy `model` is."""
        return self._scheduler.load(model)

    def waiting(self, model: str) -> list[Waiting]:
        """The calls that wait for `model`, the next first, each with its reason."""
        return self._scheduler.waiting(model, self._clock.monotonic())

    def waiting_runs(self) -> dict[str, Waiting]:
        """Of each run that has calls waiting the one that is next, for all runs at once."""
        found: dict[str, Waiting] = {}
        for waiting in (waiting for model in self._models for waiting in self.waiting(model)):
            if (run := waiting.call.run_id) is not None:
                known = found.setdefault(run, waiting)
                if waiting.position < known.position:
                    found[run] = waiting
        return found

    def running(self, model: str) -> list[Running]:
        """The calls that have a slot of `model`."""
        return self._scheduler.running(model)

    def reasons(self, model: str) -> Mapping[Reason, int]:
        """How many calls wait for `model`, by reason."""
        return self._scheduler.reasons(model, self._clock.monotonic())

    def slots(self, model: str) -> int:
        """How many calls to `model` may run at once, by now."""
        return self._scheduler.slots(model)

    def resize(self, model: str, slots: int) -> None:
        """`model` has so many slots from now on; more are handed out with the next call that comes or ends."""
        self._scheduler.resize(model, slots)

    def learn(self, model: str, left: Mapping[str, float]) -> None:
        """An engine said how many `requests` and `tokens` are left in this minute."""
        self._scheduler.learn(model, left, self._clock.monotonic())

    def advance(self) -> None:
        """Start what may start now: slots came or went."""
        self._advance()

    def fail(self, model: str, error: Callable[[], Exception]) -> None:
        """Every call that waits for `model` raises an `error()` instead of starting."""
        for call in self._scheduler.cancel_model(model):
            turn = self._waiting.pop(call.id)
            if not turn.done():
                turn.set_exception(error())

    def hold(self, run_id: str) -> None:
        """No call of the run or its sub-runs starts from now on. Raises `ValueError` when too many are held."""
        self._scheduler.hold(run_id, self._clock.monotonic())
        self._advance()

    def release(self, run_id: str) -> None:
        """The calls of the run may start again, from the places they had."""
        self._scheduler.release(run_id, self._clock.monotonic())
        self._advance()

    def renice(self, run_id: str, priority: int) -> None:
        """The run's waiting calls have this nice value from now on."""
        self._scheduler.renice(run_id, priority, self._clock.monotonic())
        self._advance()

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        self._scheduler.forget(run_id)
        self._advance()

    async def _turn(self, call_id: str) -> float:
        """Wait until a call that the scheduler knows may run; how long it waited."""
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = turn
        self._advance()
        try:
            return await turn
        except BaseException:
            self._withdraw(call_id, turn)
            raise

    async def _suspend(self, call_id: str) -> float:
        slot, now = self._slots[call_id], self._clock.monotonic()
        slot.had = slot.wanted = False
        self._scheduler.suspend(call_id, now)
        await self._turn(call_id)
        slot.had = True
        self._want()
        return self._clock.monotonic() - now

    def _want(self) -> None:
        """Tell the calls that are in the way of more urgent ones, and those that are no more."""
        wanted = {found.victim for found in self._scheduler.preemptions()}
        for call_id in wanted ^ self._wanted:
            if call_id in self._slots:
                self._slots[call_id].wanted = call_id in wanted
        self._wanted = wanted & self._slots.keys()

    def _advance(self) -> None:
        now = self._clock.monotonic()
        for late in self._scheduler.expire(now):
            turn = self._waiting.pop(late.id)
            if not turn.done():
                turn.set_exception(DeadlineExceeded(f"the call waited for the model {late.model!r} until its deadline"))
        for admission in self._scheduler.next(now):
            turn = self._waiting.pop(admission.call.id)
            if turn.done():  # its caller was cancelled in this turn of the loop and has yet to withdraw
                self._scheduler.finish(admission.call.id, now)
                asyncio.get_running_loop().call_soon(self._advance)
            else:
                turn.set_result(admission.waited)
        self._want()
        self._arm(now)
        self.on_change()

    def _arm(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (deadline := self._scheduler.next_deadline()) is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - now) + 0.001, self._advance)

    def _withdraw(self, call_id: str, turn: asyncio.Future[float]) -> None:
        self._waiting.pop(call_id, None)
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self._end(call_id, None)  # it was admitted in the same turn of the loop in which it was cancelled
        else:
            self._scheduler.cancel(call_id)
            self._want()
            self.on_change()

    def _end(self, call_id: str, outcome: Outcome | None) -> None:
        self._scheduler.finish(call_id, self._clock.monotonic(), outcome)
        self._advance()

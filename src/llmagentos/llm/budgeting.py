"""Budgets of calls and runs: reserved in every ancestor before, durably where a hard limit counts, settled afterwards.

A call of a run that is made again after a crash is the same call to the budget: it finds what it held, or
that it was settled, and is counted once. Calls without a run are never repeated, so what was under way when
the server died counts as spent in full where a hard limit counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import cast

from llmagentos.api.budgets import BudgetAlert, BudgetWait, OnLimit
from llmagentos.core import log, metrics, tracing
from llmagentos.core.clock import Clock
from llmagentos.core.errors import NotFound, Unavailable
from llmagentos.kernel.budgets import BudgetTree, Path, Reservation
from llmagentos.kernel.limits import Alert, Amounts, BudgetExceeded, Refusal
from llmagentos.kernel.prices import PriceTable
from llmagentos.llm import budget_signals
from llmagentos.llm.budget_calls import (
    OPEN,
    SETTLED,
    Demand,
    Hold,
    KnownRun,
    Measured,
    PausedByBudget,
    Place,
    Step,
    Unseen,
    count,
    whole,
)
from llmagentos.llm.budget_journal import Journal
from llmagentos.llm.budget_signals import Waits
from llmagentos.storage.budgets import BudgetRecords, CallRecord

ROOM_OUT = 4096
"""Tokens of an answer that are reserved, and then the most that it gets, when its caller sets no limit but a budget
does."""
PATIENCE_S = 10.0
"""How long a call waits when only what other calls hold is in its way."""
WATCH_S = 0.5
_SHORTEST_OUT = 16
_LOOK_S = 0.05

_log = log.get(__name__)


class Budgeting:
    """Drives the tree. `announce` is told of alerts; `pause` and `resume` of runs that wait for room."""

    def __init__(
        self,
        tree: BudgetTree,
        records: BudgetRecords,
        clock: Clock,
        *,
        prices: PriceTable,
        announce: Callable[[BudgetAlert], None],
        on_limit: Callable[[Path], OnLimit],
    ) -> None:
        self._tree = tree
        self._records = records
        self._clock = clock
        self._prices = prices
        self._announce = announce
        self._on_limit = on_limit
        self._runs: dict[str, KnownRun] = {}
        self._waits = Waits(clock)
        self._paused: set[str] = set()
        self._unseen = Unseen()
        self.journal = Journal(records.store, lambda path: tree.stored(path)["windows"])
        self.path_of: Callable[[str], Awaitable[Path]] = _nowhere
        """Where a run stands in the tree; asked once."""
        self.step_of: Callable[[str], Awaitable[Step | None]] = _no_step
        """The step that the run is at; None for one whose calls are never made again."""
        self.pause: Callable[[str, str], Awaitable[bool]] = _unpaused
        """`await pause(run, reason)`: whether its call waits here until the run is resumed."""
        self.resume: Callable[[str], Awaitable[object]] = _unpaused

    # Start ----------------------------------------------------------------------------------------

    async def begin(self, live: Collection[str], paused: Iterable[str] = ()) -> None:
        """Take up what storage holds. Runs that are not `live` are closed; `paused` ones wait for a budget."""
        spending, calls = await self._records.spending(), await self._records.calls()
        self._tree.load(
            {
                "accounts": [{"path": s.path.split("/"), "windows": s.windows} for s in spending],
                "open": [[c.id, c.path.split("/"), c.amounts] for c in calls if c.state == OPEN],
                "settled": [[c.id, c.path.split("/")] for c in calls if c.state == SETTLED],
            }
        )
        self._unseen.found(calls)
        for node in spending:
            if node.run is not None:
                self._runs.setdefault(node.run, KnownRun(tuple(node.path.split("/"))))
        for call in calls:
            if call.run is not None:
                known = self._runs.setdefault(call.run, KnownRun(tuple(call.path.split("/"))))
                if call.step is not None:
                    known.earlier.append(call)
            elif call.state == OPEN:
                self._settle_in_full(call)
        for run in sorted(set(self._runs) - set(live)):
            self._runs[run].ended = True
        self._close_ended()
        for run in paused:
            await self._wait_again(run)
        await self.journal.commit()

    def _settle_in_full(self, call: CallRecord) -> None:
        path, amounts = tuple(call.path.split("/")), cast("Amounts", call.amounts)
        self._told(self._tree.settle(call.id, amounts))
        self.journal.logged(self._unseen.cut_off(call.id, path, amounts))
        self.journal.gone(call.id)
        self.journal.spent(path)

    async def _wait_again(self, run: str) -> None:
        self._waits.unknown(run, await self._path(run))
        self._paused.add(run)

    # Calls to models ------------------------------------------------------------------------------

    @asynccontextmanager
    async def holding(self, measured: Measured, caller: Path, run: str | None, demand: Demand) -> AsyncIterator[Hold]:
        """Hold what the call may take for the block; settled to what it took, or given back when it never started.

        `caller` is the node of a call without a run. Raises `BudgetExceeded`.
        """
        place = Place(caller) if run is None else Place(await self._path(run), await self.step_of(run))
        hold = await self._reserve(measured, place, run, demand)
        failed: BaseException | None = None
        try:
            yield hold
            hold.succeeded = True
        except BaseException as error:
            failed = error
            raise
        finally:
            await self._finish(hold, measured, failed)

    async def _reserve(self, measured: Measured, place: Place, run: str | None, demand: Demand) -> Hold:
        left = {resource: self._tree.headroom(place.path, resource) for resource in ("tokens", "money", "calls")}
        limited = left["tokens"] is not None or left["money"] is not None  # an answer can run into a hard limit
        most_out = _most_out(demand, left["tokens"])
        tokens_out = most_out or 0
        cost = self._prices.cost(measured.model, demand.tokens_in, tokens_out, self._clock.time())
        amounts: Amounts = whole({"tokens": demand.tokens_in + tokens_out, "money": cost, "calls": 1})
        earlier = self._again(run, place.step)
        call_id = measured.id if earlier is None else earlier.id
        capped = most_out if demand.generates and (demand.most_out is not None or limited) else None
        about = measured.record(None)
        hold = Hold(call_id, place.path, run, place.step, capped, earlier=earlier, about=about)
        await self._held(call_id, place.path, run, amounts)
        if run is not None:
            self._runs[run].inflight.add(call_id)
            self._waits.over(run)
        if earlier is not None and run is not None:
            self._runs[run].earlier.remove(earlier)
            metrics.BUDGET_REPLAYS.inc()
            return hold  # its record stands already
        self.journal.call(hold.record(self._clock.time(), amounts, OPEN))
        if not limited and left["calls"] is None:
            return hold  # nothing can be overspent: what it holds is stored with what it took
        try:
            with tracing.span("reserve_budget", llmagentos__budget=hold.path[-1]):
                await self.journal.commit()
        except BaseException:
            self._let_go(hold)
            raise
        return hold

    def _again(self, run: str | None, step: Step | None) -> CallRecord | None:
        """The call as an earlier host of the run made it."""
        if run is None or step is None:
            return None
        known = self._runs[run]
        if known.fence != step.fence:
            known.earlier, known.done, known.fence = [*known.earlier, *known.done], [], step.fence
        known.earlier = [call for call in known.earlier if call.step == step.name or call.state == OPEN]
        return next((call for call in known.earlier if call.step == step.name), None)

    async def _finish(self, hold: Hold, measured: Measured, failed: BaseException | None) -> None:
        self._landed(hold)
        usage = measured.spent
        if hold.started and (hold.succeeded or usage.prompt_tokens or usage.completion_tokens):
            cost = self._prices.cost(measured.model, usage.prompt_tokens, usage.completion_tokens, self._clock.time())
            tokens = usage.prompt_tokens + usage.completion_tokens
            self._unseen.seen(hold.id)
            if self._settle(hold, whole({"tokens": tokens, "money": cost, "calls": 1})):
                self.journal.logged([measured.charged(failed, "/".join(hold.path), tokens, cost)])
        elif hold.earlier is not None and hold.run is not None:
            self._runs[hold.run].earlier.insert(0, hold.earlier)  # its first time may have taken all of it
        else:
            self._let_go(hold)
        self._close_ended()
        try:
            await self.journal.commit()
        except Unavailable as error:
            # What it took is known, and stored once that works: an answer that was paid stands.
            _log.warning("budgets not stored yet", reason=error.message)

    def _settle(self, hold: Hold, used: Amounts) -> bool:
        if not self._tree.holds(hold.id):
            return False  # made again by the run's next host, and settled before
        self._told(self._tree.settle(hold.id, used))
        count(used)
        if hold.run is not None and hold.succeeded:
            record = hold.record(self._clock.time(), used, SETTLED)
            self.journal.call(record)
            if hold.step is not None:
                self._runs[hold.run].done.append(record)
        else:
            self.journal.gone(hold.id)
        self.journal.spent(hold.path)
        return True

    def _let_go(self, hold: Hold) -> None:
        if self._tree.release(hold.id):
            self.journal.gone(hold.id)
        self._landed(hold)

    def _landed(self, hold: Hold) -> None:
        if hold.run is not None and (known := self._runs.get(hold.run)) is not None:
            known.inflight.discard(hold.id)

    # Runs -----------------------------------------------------------------------------------------

    async def admit(self, run: str) -> bool:
        """Whether the run may be under way now: it gets a place among the concurrent runs, until it has ended."""
        path = await self._path(run)
        call_id, amounts = f"run:{run}", whole({"runs": 1})
        if self._tree.holds(call_id):
            return True
        if (refusal := self._tree.check(path, amounts)) is not None:
            self._waits.refused(refusal, run, amounts)
            return False
        self._tree.reserve(call_id, path, amounts)
        hold = Hold(call_id, path, run, None, None)
        self.journal.call(hold.record(self._clock.time(), amounts, OPEN))
        self._waits.over(run)
        try:
            await self.journal.commit()
        except BaseException:
            self._let_go(hold)
            raise
        return True

    @asynccontextmanager
    async def tool_called(self, run: str, call_id: str) -> AsyncIterator[None]:
        """Count a tool call that the block makes, once however often it is told; not when the block fails.

        What stays open as the process dies is counted when the run ends. Raises `BudgetExceeded` when there is no room.
        """
        path = await self._path(run)
        amounts = whole({"tool_calls": 1})
        hold = Hold(f"{run}.{call_id}", path, run, None, None, started=True, succeeded=True)
        if (await self._held(hold.id, path, run, amounts)).settled:
            yield
            return
        if (known := self._runs.get(run)) is not None:
            known.inflight.add(hold.id)
        self.journal.call(hold.record(self._clock.time(), amounts, OPEN))
        try:
            await self.journal.commit()
            yield
        except BaseException:
            self._let_go(hold)
            raise
        else:
            self._landed(hold)
            self._settle(hold, amounts)
        finally:
            self._close_ended()

    def rests(self, run: str) -> None:
        """The run waits for a person: its place among the concurrent runs is free, until it is admitted again."""
        if (known := self._runs.get(run)) is not None:
            self._let_go(Hold(f"run:{run}", known.path, run, None, None))

    def worked(self, run: str, seconds: int) -> None:
        """The run has worked `seconds` in all; what was not counted yet is. Stored within `WATCH_S`."""
        if (known := self._runs.get(run)) is None:
            return
        more = seconds - self._tree.spent(known.path).get("seconds", 0)
        if more > 0:
            used = whole({"seconds": more})
            self._told(self._tree.charge(f"{run}.seconds.{seconds}", known.path, used))
            count(used)
            self.journal.spent(known.path)

    def ended(self, run: str) -> None:
        """The run is over: what it still holds is settled, in full when nobody says otherwise any more.

        Stored within `WATCH_S`, or by `begin` of the next process.
        """
        self._waits.over(run)
        self._paused.discard(run)
        if (known := self._runs.get(run)) is not None:
            known.ended = True
            self._close_ended()

    def _close_ended(self) -> None:
        """Close what has ended, once its own calls and its sub-runs are over."""
        ended = [(known.path, run) for run, known in self._runs.items() if known.ended and not known.inflight]
        for path, run in sorted(ended, reverse=True):
            if any(other != run and known.path[: len(path)] == path for other, known in self._runs.items()):
                continue
            left = [held for held in self._tree.open(path) if "runs" not in held.amounts]
            for held in left:
                self.journal.logged(self._unseen.cut_off(held.call_id, path, held.amounts))
            self._told(self._tree.close(path))
            del self._runs[run]
            self.journal.closed(run, path)
            if left:
                self.journal.spent(path[:-1])

    async def _path(self, run: str) -> Path:
        if run not in self._runs:
            path = await self.path_of(run)
            self._runs.setdefault(run, KnownRun(path))
        return self._runs[run].path

    # Limits that are reached ----------------------------------------------------------------------

    async def _held(self, call_id: str, path: Path, run: str | None, amounts: Amounts) -> Reservation:
        """Hold `amounts`. Waits for a while when only what others hold is in the way, and for a program until it is
        resumed. Raises `BudgetExceeded` or `PausedByBudget`.
        """
        patience = self._clock.monotonic() + PATIENCE_S
        while True:
            late = self._tree.check(path, {"seconds": 1}) if run is not None else None
            try:
                if late is not None:
                    raise BudgetExceeded.of(late)
                return self._tree.reserve(call_id, path, amounts)
            except BudgetExceeded as error:
                refusal = error.refusal
            self._waits.refused(refusal, run, amounts if late is None else {**amounts, "seconds": 1})
            if refusal.only_reserved and self._clock.monotonic() < patience:
                await asyncio.sleep(_LOOK_S)
            else:
                await self._stop(refusal, run)

    async def _stop(self, refusal: Refusal, run: str | None) -> None:
        """Refuse or pause; returns when a program, whose calls stay where they are, may go on."""
        on_limit = self._on_limit(refusal.path)
        told = BudgetExceeded.of(refusal, **budget_signals.facts(refusal), on_limit=on_limit)
        if run is None or on_limit == "refuse":
            raise told
        self._paused.add(run)
        if not await self.pause(run, told.message):
            raise PausedByBudget(told.message, hint=told.hint, **budget_signals.facts(refusal))
        while True:
            await asyncio.sleep(_LOOK_S)
            if run not in self._paused:
                return

    def resumed(self, run: str) -> None:
        """Somebody lets the run go on: its next call shows whether there is room."""
        self._paused.discard(run)

    async def prune(self) -> int:
        """Forget nodes without limits that have spent nothing for longer than the retention; how many."""
        idle = [tuple(path.split("/")) for path in await self._records.idle()]
        gone = [path for path in idle if self._tree.forget(path)]
        self.journal.forgotten(gone)
        await self.journal.commit()
        return len(gone)

    def waiting(self) -> list[BudgetWait]:
        """Runs that wait for room, those that wait longest first."""
        return self._waits.listing()

    def has_room(self, run: str) -> bool:
        """Whether what the run was refused last would fit now; True when it was refused nothing."""
        wanted, known = self._waits.wanted(run), self._runs.get(run)
        return wanted is None or known is None or self._tree.check(known.path, wanted) is None

    async def let_on(self) -> None:
        """Resume the paused runs that have room again, and store what could not be stored."""
        for run in [run for run in self._paused if self.has_room(run)]:
            self._paused.discard(run)
            self._waits.over(run)
            _log.info("budget has room again", run_id=run)
            try:
                await self.resume(run)
            except BaseException:  # the next look tries it again
                self._paused.add(run)
                raise
        await self.journal.commit()

    async def watch(self) -> None:
        """`let_on` for ever: room comes with periods that end, calls that settle, limits that are raised."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self.let_on()
            except Exception as error:  # the loop that keeps budgets going until storage works again
                _log.error("budgets not stored", error=str(error))

    def _told(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            self._announce(budget_signals.told(alert, self._clock.time()))


async def _nowhere(run: str) -> Path:
    raise NotFound(f"there is no run {run!r}")


async def _no_step(_: str) -> None:
    return None


async def _unpaused(*_: object) -> bool:
    return False


def _most_out(demand: Demand, left: int | None) -> int | None:
    """The longest answer, in tokens, when `left` are left for prompt and answer (None: no hard limit)."""
    if not demand.generates:
        return None
    if demand.most_out is not None:
        return demand.most_out
    return ROOM_OUT if left is None else max(_SHORTEST_OUT, min(ROOM_OUT, left - demand.tokens_in))

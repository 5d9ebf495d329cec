"""The keeper of all runs' logs: one writer at a time, every event checked by the fold before it is stored.

Lives in the server. A host holds a lease on each run that it carries on; the lease's fencing token is
the claim's `fence`. Who lost the lease cannot write any more, so a host that was only slow never mixes
its events with those of its successor.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from llmagentos.agents import log as runlog
from llmagentos.agents.log import Log
from llmagentos.agents.records import Agent, Records, Row, SpecOf
from llmagentos.agents.states import RunEnded
from llmagentos.api.agents import AgentSpec
from llmagentos.api.runs import (
    Answered,
    Claim,
    Claimed,
    Created,
    Data,
    Failed,
    Killed,
    Run,
    RunDelta,
    RunEvent,
    RunState,
    RunSummary,
    Turn,
)
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, InvalidInput, NotFound, TooManyRequests
from llmagentos.core.events import LAGGED, Hub
from llmagentos.core.ids import new_id
from llmagentos.kernel.leases import LeaseTable

LEASE_S = 10.0
SWEEP_S = 0.5
MAX_UNENDED = 10_000
"""Runs that wait or run at the same time; more are refused."""
HISTORY_TURNS = 8
HISTORY_CHARACTERS = 4000
SERVER = "server"
"""The host of agents that are defined in YAML."""
_REMEMBER = 512

_log = log.get(__name__)


class SessionBusy(Conflict):
    """The session's last request has not been answered yet."""

    code = "session_busy"


class Ledger:
    """All runs. `on_end` are told of every run that was killed, after it is stored."""

    def __init__(self, records: Records, hub: Hub, clock: Clock, spec_of: SpecOf, *, lease_s: float = LEASE_S) -> None:
        self._records = records
        self._hub = hub
        self._clock = clock
        self._spec_of = spec_of
        self._leases = LeaseTable(clock, lease_s)
        self._known: OrderedDict[str, Log] = OrderedDict()
        self._writing: dict[str, asyncio.Lock] = {}
        self._claiming = asyncio.Lock()
        self.on_kill: list[Callable[[str], Any]] = []

    # Asking ---------------------------------------------------------------------------------------

    async def create(self, agent: Agent, text: str, *, by: str, session: str | None = None) -> RunSummary:
        """A new run of `agent`, queued.

        Raises `SessionBusy` while the session has a run that has not ended, `TooManyRequests` when too many have not.
        """
        spec = agent.spec
        if await self._records.unended_count() >= MAX_UNENDED:
            raise TooManyRequests(f"{MAX_UNENDED} runs have not ended yet", retry_after=10.0, hint="`llmctl ps`")
        history: list[Turn] = []
        if session is not None:
            if (busy := await self._records.busy(spec.name, session)) is not None:
                raise SessionBusy(
                    f"the session {session!r} still works on its last request",
                    hint=f"wait for it, or `llmctl kill {busy}`",
                    run=busy,
                )
            history = await self._history(spec.name, session)
        data = Created(spec.name, agent.version, spec.model, text, by, session, history)
        run = new_id()
        event = RunEvent(1, self._clock.time(), data)
        state = runlog.fold([event])
        summary = runlog.summary(run, state)
        await self._records.create(summary, agent.host, [event])
        self._publish(run, state, [event])
        self._hub.publish(claims_topic(agent.host), run)
        return summary

    async def _history(self, agent: str, session: str) -> list[Turn]:
        """The session's last answered requests, oldest first, within the limits."""
        turns: list[Turn] = []
        left = HISTORY_CHARACTERS
        for summary in await self._records.newest(ended=True, agent=agent, session=session, limit=HISTORY_TURNS):
            state = await self._load(summary.id)
            if state.answer is None:
                continue
            left -= len(state.input) + len(state.answer.text)
            if left < 0:
                break
            turns.append(Turn(state.input, state.answer.text))
        return turns[::-1]

    # Looking --------------------------------------------------------------------------------------

    async def resolve(self, prefix: str) -> str:
        """The id that `prefix` stands for. Raises `NotFound`, or `InvalidInput` when several begin so."""
        found = await self._records.find(prefix) if prefix else []
        if prefix in found:
            return prefix
        if not found:
            raise NotFound(f"there is no run {prefix!r}", hint="`llmctl ps -a` lists runs")
        if len(found) > 1:
            raise InvalidInput(f"several runs begin with {prefix!r}", hint=f"e.g. {', '.join(found[:2])}: type more")
        return found[0]

    async def get(self, run: str) -> Run:
        """One run in full. Raises `NotFound`."""
        return runlog.detail(run, await self._load(run))

    async def events(self, run: str, *, after: int = 0) -> list[RunEvent]:
        """The log from the event after `after`."""
        return await self._records.events(run, after=after)

    async def newest(self, *, ended: bool, agent: str | None = None, limit: int = 100) -> list[RunSummary]:
        """Runs, newest first."""
        return await self._records.newest(ended=ended, agent=agent, limit=limit)

    async def follow(self, run: str, *, after: int = 0) -> AsyncIterator[RunEvent | RunDelta]:
        """The log from the event after `after`, live, until the run has ended or the server stops."""
        with self._hub.subscribe(run_topic(run)) as subscription:
            fresh = True
            while True:
                if fresh:
                    for event in await self._records.events(run, after=after):
                        after = event.seq
                        yield event
                        if is_end(event):
                            return
                    if not after:
                        raise NotFound(f"there is no run {run!r}")
                    # The end may lie before `after`: nothing will ever come.
                    if (await self._load(run)).ended_at is not None and not await self.events(run, after=after):
                        return
                try:
                    item = await subscription.next()
                except StopAsyncIteration:
                    return
                fresh = item is LAGGED
                if isinstance(item, RunDelta):
                    yield item
                elif isinstance(item, RunEvent) and item.seq > after:
                    after = item.seq
                    yield item
                    if is_end(item):
                        return

    # Carrying on ----------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Take up at the server's start: others' claims get one full fresh lease, the server's own are free."""
        self._leases.advance(await self._records.highest_fence())
        for row in await self._records.unended():
            if row.state is RunState.RUNNING and row.host != SERVER and row.holder:
                self._leases.restore(row.id, row.holder, row.fence)

    async def sweep(self) -> None:
        """Offer the runs whose lease ran out to other hosts, for ever."""
        while True:
            for lease in self._leases.expired():
                row = await self._records.row(lease.key)
                if row is not None and not row.state.ended:
                    _log.warning("lease of a run ran out", run_id=lease.key, holder=lease.holder, fence=lease.token)
                    self._hub.publish(claims_topic(row.host), lease.key)
            await asyncio.sleep(SWEEP_S)

    async def claim(self, host: str, holder: str, *, agents: Sequence[str] | None = None, wait: float) -> Claim | None:
        """A run for `holder` of `host` to carry on, waiting up to `wait` seconds for one."""
        end = self._clock.monotonic() + wait
        with self._hub.subscribe(claims_topic(host)) as subscription:
            while True:
                async with self._claiming:
                    claim = await self._try_claim(host, holder, agents)
                left = end - self._clock.monotonic()
                if claim is not None or left <= 0:
                    return claim
                try:
                    await subscription.next(left)
                except TimeoutError:
                    continue  # one last look
                except StopAsyncIteration:
                    return None

    async def _try_claim(self, host: str, holder: str, agents: Sequence[str] | None) -> Claim | None:
        for row in await self._records.claimable(host, agents):
            if self._leases.live(row.id) is not None:
                continue
            async with self._lock(row.id):
                try:
                    claim = await self._claim(row, holder)
                except Conflict as error:  # ended since the query
                    _log.debug("not claimed", run_id=row.id, reason=error.message)
                    continue
            if claim is not None:
                return claim
        return None

    async def _claim(self, row: Row, holder: str) -> Claim | None:
        state = await self._load(row.id)
        spec: AgentSpec | None = await self._spec_of(state.request.agent, state.request.version)
        lease = self._leases.grant(row.id, holder)
        try:
            taken = await self._write(row.id, state, [Claimed(holder, lease.token)], holder=holder)
            if spec is None:
                await self._write(row.id, taken[0], [Failed(f"the agent {row.agent!r} was deleted", "not_found")])
                return None
            return Claim(row.id, lease.token, self._leases.ttl, spec, await self._records.events(row.id))
        except BaseException:  # also when whoever waited for it is gone: the next may have it at once
            self._leases.release(row.id, lease.token)
            raise

    async def append(self, run: str, fence: int, after: int, data: Sequence[Data]) -> list[RunEvent]:
        """Add `data` after the event `after`. Repeating an append that was stored before changes nothing.

        Raises `LeaseLost`, `RunEnded`, `RunMoved` or `InvalidTransition`.
        """
        if any(isinstance(item, Created | Claimed | Killed) for item in data):
            raise InvalidInput("a host adds only what happens within its claim")
        async with self._lock(run):
            state = await self._load(run)
            if state.seq > after and fence == state.fence:
                stored = await self._records.events(run, after=after)
                if [event.data for event in stored] == list(data):
                    return stored
            if state.ended_at is not None:
                raise RunEnded(f"the run {run} has ended", run=run)
            self._leases.check(run, fence)
            if after != state.seq:
                raise Conflict(f"the log is at event {state.seq}, not {after}", run=run)
            return (await self._write(run, state, data))[1]

    def renew(self, run: str, fence: int) -> float:
        """Keep the lease: how long it lasts now, in seconds. Raises `LeaseLost`."""
        self._leases.renew(run, fence)
        return self._leases.ttl

    async def release(self, run: str, fence: int) -> None:
        """Give the run up so that another host can take it at once."""
        if not self._leases.release(run, fence):
            return
        await self._records.released(run, fence)
        row = await self._records.row(run)
        if row is not None and not row.state.ended:
            self._hub.publish(claims_topic(row.host), run)

    async def host_of(self, run: str) -> str:
        """Whose run it is. Raises `NotFound`."""
        row = await self._records.row(run)
        if row is None:
            raise NotFound(f"there is no run {run!r}")
        return row.host

    async def host_of_live(self, run: str) -> str:
        """Whose run it is, while it has not ended. Raises `NotFound` or `RunEnded`."""
        row = await self._records.row(run)
        if row is None:
            raise NotFound(f"there is no run {run!r}")
        if row.state.ended:
            raise RunEnded(f"the run {run} has ended", run=run)
        return row.host

    # Ending ---------------------------------------------------------------------------------------

    async def kill(self, run: str, *, by: str) -> Run:
        """End the run: stored first, then whoever works on it is told. Raises `RunEnded`."""
        async with self._lock(run):
            state, _ = await self._write(run, await self._load(run), [Killed(by)])
        for told in self.on_kill:
            told(run)
        _log.info("run killed", run_id=run, by=by)
        return runlog.detail(run, state)

    async def kill_all_of(self, agent: str, *, by: str) -> int:
        """End every run of `agent`; how many."""
        count = 0
        for row in await self._records.unended(agent=agent):
            try:
                await self.kill(row.id, by=by)
                count += 1
            except RunEnded:
                continue
        return count

    def delta(self, run: str, text: str) -> None:
        """A piece of an answer that is being generated."""
        self._hub.publish(run_topic(run), RunDelta(run, text))

    # The one place that writes --------------------------------------------------------------------

    async def _write(
        self, run: str, state: Log, data: Iterable[Data], *, holder: str | None = None
    ) -> tuple[Log, list[RunEvent]]:
        now = self._clock.time()
        events = [RunEvent(state.seq + i, now, item) for i, item in enumerate(data, 1)]
        for event in events:
            state = runlog.apply(state, event)
        try:
            await self._records.append(runlog.summary(run, state), events, fence=state.fence, holder=holder)
        except BaseException:
            self._known.pop(run, None)  # a commit may or may not have happened: read it again
            raise
        self._remember(run, state)
        if state.ended_at is not None:
            self._leases.drop(run)
        self._publish(run, state, events)
        return state, events

    def _publish(self, run: str, state: Log, events: Iterable[RunEvent]) -> None:
        for event in events:
            self._hub.publish(run_topic(run), event)
        self._hub.publish("runs", runlog.summary(run, state))
        if state.answer is not None and state.answer.replaced is not None:
            metrics.ANSWERS_REPLACED.labels(state.request.agent).inc()
        if state.ended_at is not None and state.state is not None:
            took = state.ended_at - (state.started_at or state.ended_at)
            metrics.RUNS.labels(state.request.agent, state.state.value).inc()
            metrics.RUN_SECONDS.labels(state.request.agent, state.state.value).observe(max(0.0, took))

    async def _load(self, run: str) -> Log:
        known = self._known.get(run)
        if known is not None:
            return known
        events = await self._records.events(run)
        if not events:
            raise NotFound(f"there is no run {run!r}", hint="`llmctl ps -a` lists runs")
        state = runlog.fold(events)
        self._remember(run, state)
        return state

    def _remember(self, run: str, state: Log) -> None:
        if (known := self._known.get(run)) is not None and known.seq > state.seq:
            return  # a reader that was slower than the writer
        self._known[run] = state
        self._known.move_to_end(run)
        if len(self._known) > _REMEMBER:
            self._known.popitem(last=False)

    def _lock(self, run: str) -> asyncio.Lock:
        """One writer of a run at a time; locks nobody holds are dropped when there are many."""
        if run not in self._writing and len(self._writing) > _REMEMBER:
            self._writing = {key: lock for key, lock in self._writing.items() if lock.locked()}
        return self._writing.setdefault(run, asyncio.Lock())


def is_end(event: RunEvent) -> bool:
    """Whether nothing follows on `event`."""
    return isinstance(event.data, Answered | Failed | Killed)


def run_topic(run: str) -> str:
    """The hub's topic of one run's events."""
    return f"run:{run}"


def claims_topic(host: str) -> str:
    """The hub's topic that wakes `host` when there is a run for it."""
    return f"claims:{host}"

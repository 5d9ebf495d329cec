"""The keeper of all runs' logs: one writer at a time, every event checked by the fold before it is stored.

Lives in the server. A host holds a lease on each run that it carries on; the lease's fencing token is
the claim's `fence`. Who lost the lease cannot write any more, so a host that was only slow never mixes
its events with those of its successor.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from weakref import WeakValueDictionary

from msgspec.structs import replace

from llmagentos.agents import log as runlog
from llmagentos.agents import permits, states
from llmagentos.agents.admission import Admission, Unlimited
from llmagentos.agents.following import Drafts, claims_topic, follow, run_topic
from llmagentos.agents.known import Known
from llmagentos.agents.log import WITNESSED, Log
from llmagentos.agents.measuring import measure
from llmagentos.agents.records import Agent, Records, Row, SpecOf, the_one
from llmagentos.agents.sessions import NEW, asking, before, caller_of
from llmagentos.agents.states import RunEnded, RunPaused
from llmagentos.agents.surroundings import Surroundings
from llmagentos.api.agents import AgentSpec, Priority
from llmagentos.api.hosting import Claim
from llmagentos.api.runs import (
    Answered,
    Attachment,
    Claimed,
    Created,
    Data,
    Exited,
    Failed,
    Killed,
    Run,
    RunDelta,
    RunEvent,
    RunSort,
    RunState,
    RunSummary,
    ToolCalled,
)
from llmagentos.core import log
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput, NotFound, TooManyRequests
from llmagentos.core.events import Hub
from llmagentos.core.finishing import to_the_end
from llmagentos.core.ids import new_id
from llmagentos.kernel.calls import priority_of
from llmagentos.kernel.leases import Lease, LeaseTable

LEASE_S = 10.0
SWEEP_S = 0.5
MAX_UNENDED = 10_000
"""Runs that wait or run at the same time; more are refused."""
SERVER = "server"
"""The host of agents that are defined in YAML."""
PROGRAM = "program"
"""The host of runs whose work is a program of somebody else's: nobody can take them over."""
_REMEMBER = 512
_QUEUED = 20
"""Queued runs that are looked at for a claim."""

_log = log.get(__name__)


Changed = Callable[[str, Log, Sequence[RunEvent]], object]


class Ledger:
    """All runs. `on_change` are told of a run's new state and events, after they are stored."""

    def __init__(self, records: Records, hub: Hub, clock: Clock, spec_of: SpecOf, *, lease_s: float = LEASE_S) -> None:
        self._records = records
        self._hub = hub
        self._clock = clock
        self._spec_of = spec_of
        self._leases = LeaseTable(clock, lease_s)
        self._known = Known(_REMEMBER)
        self._writing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._claiming = asyncio.Lock()
        self.drafts = Drafts(hub)
        self.on_change: list[Changed] = [measure, self.drafts.changed]
        self.budgets: Admission = Unlimited()
        self.deny: Mapping[str, Sequence[str]] = {}
        """Patterns of tools that are denied, by patterns of callers."""
        self.around = Surroundings()
        self.cost: Callable[[Log], int] = lambda _: 0
        """What a run has cost so far, in billionths of the currency."""
        self._held_back: dict[str, str] = {}
        """Runs that were not admitted, with the hosts that wanted them."""

    # Asking ---------------------------------------------------------------------------------------

    async def create(
        self,
        agent: Agent,
        text: str,
        *,
        by: str,
        session: str | None = None,
        priority: Priority | None = None,
        parent: str | None = None,
        run: str | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> RunSummary:
        """A new run of `agent`, queued; its priority is `priority`, or else that of `parent`, or else the agent's.

        `run` is its id, for who must find it again; without it a new one.

        Raises `SessionBusy` while the session has a run that has not ended, `TooManyRequests` when too many have not,
        `RunEnded` or `RunPaused` when `parent` does not run, `Forbidden` when it acts for somebody else than `by`.
        """
        spec, run = agent.spec, run or new_id()
        async with self._lock(parent) if parent is not None else nullcontext():  # who stops it has all that is below it
            above = await asking(self._load, parent, by) if parent is not None else None
            nice = priority if priority is not None else above.priority if above is not None else spec.priority
            level = priority_of(str(nice))
            if await self._records.unended_count() >= MAX_UNENDED:
                raise TooManyRequests(f"{MAX_UNENDED} runs have not ended yet", retry_after=10.0, hint="`llmctl ps`")
            past = await before(self._records, self._load, spec.name, session, by) if session is not None else NEW
            told = partial(self.around.created, run, agent, text, by=by, session=session, before=past)
            data = await told(priority=level, parent=parent, attachments=attachments)
            event = RunEvent(1, self._clock.time(), data)
            state = runlog.fold([event])
            await to_the_end(self._begun(run, agent.host, state, event))  # else nobody would hear of what may be stored
        return self._summary(run, state)

    async def _begun(self, run: str, host: str, state: Log, event: RunEvent) -> None:
        await self._records.create(self._summary(run, state), host, [event])
        self._publish(run, state, [event])
        self._hub.publish(claims_topic(host), run)

    # Looking --------------------------------------------------------------------------------------

    async def resolve(self, prefix: str) -> str:
        """The id that `prefix` stands for. Raises `NotFound`, or `InvalidInput` when several begin so."""
        found = await self._records.find(prefix) if prefix else []
        return the_one(prefix, found)

    async def get(self, run: str, *, viewer: str = "") -> Run:
        """One run in full, as `viewer` may see it. Raises `NotFound`."""
        state = await self._load(run)
        found = replace(runlog.detail(run, state), money=self.cost(state))
        return await self.around.vaults.shown(found, state.request, viewer)

    async def events(self, run: str, *, after: int = 0) -> list[RunEvent]:
        """The log from the event after `after`."""
        return await self._records.events(run, after=after)

    async def newest(
        self,
        *,
        ended: bool,
        agent: str | None = None,
        state: RunState | None = None,
        sort: RunSort = RunSort.NEWEST,
        limit: int = 100,
        offset: int = 0,
        before: str | None = None,
    ) -> list[RunSummary]:
        """Runs, by default the newest first; with `before` only those that are older than that run."""
        return await self._records.newest(
            ended=ended, agent=agent, state=state, sort=sort, limit=limit, offset=offset, before=before
        )

    def follow(self, run: str, *, after: int = 0) -> AsyncIterator[RunEvent | RunDelta]:
        """The log from the event after `after`, live, until the run has ended or the server stops."""
        return follow(self._hub, self.drafts, self._records.events, self._load, run, after)

    # Carrying on ----------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Take up at the server's start: others' claims get one full fresh lease, the server's own are free."""
        self._leases.advance(await self._records.highest_fence())
        for row in await self._records.unended():
            if row.state is not RunState.QUEUED and row.host != SERVER and row.holder:
                self._leases.restore(row.id, row.holder, row.fence)
            elif row.host == PROGRAM:  # nobody took it up before the server died
                await self.note(row.id, Exited())

    async def sweep(self) -> None:
        """Offer the runs whose lease ran out to other hosts, for ever."""
        late: deque[Lease] = deque()
        while True:
            late.extend(self._leases.expired())
            try:
                while late:
                    await self._lost(late[0])
                    late.popleft()
            except Exception as error:  # the loop goes on until storage works again
                _log.error("leases that ran out", runs=len(late), error=str(error))
            for run in [run for run in self._held_back if self.budgets.has_room(run)]:
                self._hub.publish(claims_topic(self._held_back.pop(run)), run)
            await asyncio.sleep(SWEEP_S)

    async def _lost(self, lease: Lease) -> None:
        row = await self._records.row(lease.key)
        if row is None or row.state.ended:
            return
        _log.warning("lease of a run ran out", run_id=lease.key, holder=lease.holder, fence=lease.token)
        if row.host != PROGRAM:
            self._hub.publish(claims_topic(row.host), row.id)
            return
        try:
            await self.note(row.id, Exited())
        except Conflict as error:
            _log.debug("ended meanwhile", run_id=row.id, reason=error.message)

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
        for row in await self._records.claimable(host, agents, queued=_QUEUED + len(self._held_back)):
            if self._leases.live(row.id) is not None or row.id in self._held_back:
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
        states.after(state.state, "claimed")  # ended or paused since the query: then it gets no place
        spec: AgentSpec | None = await self._spec_of(state.request.agent, state.request.version)
        if not await self.budgets.admit(row.id):
            self._held_back[row.id] = row.host
            return None
        async with self._granted(row.id, state, holder) as (lease, taken):
            if spec is None:
                await self._write(row.id, taken, [Failed(f"the agent {row.agent!r} was deleted", "not_found")])
                return None
            caller = await caller_of(self._load, row.id)
            events, deny = await self._records.events(row.id), permits.patterns(self.deny, caller)
            given = await self.around.given(row.id, state, spec)
            return Claim(
                row.id, lease.token, self._leases.ttl, given.spec, events, caller, deny, given.attached, given.values
            )

    async def take(self, run: str, holder: str) -> tuple[int, float]:
        """Have `holder` be the host of this very run: its fencing token, and how long the lease lasts in seconds."""
        async with self._lock(run):
            state = await self._load(run)
            states.after(state.state, "claimed")
            if not await self.budgets.admit(run):
                await self._write(run, state, [Killed("budget")])
                raise TooManyRequests("as many runs as the budget allows are under way", retry_after=10.0, run=run)
            async with self._granted(run, state, holder) as (lease, _):
                return lease.token, self._leases.ttl

    @asynccontextmanager
    async def _granted(self, run: str, state: Log, holder: str) -> AsyncIterator[tuple[Lease, Log]]:
        """A lease for `holder` with the event that says so; it ends when the block fails."""
        lease = self._leases.grant(run, holder)
        try:
            taken, _ = await self._write(run, state, [Claimed(holder, lease.token)], holder=holder)
            yield lease, taken
        except BaseException:  # also when whoever waited for it is gone: the next may have it at once
            self._leases.release(run, lease.token)
            raise

    async def append(self, run: str, fence: int, after: int, data: Sequence[Data]) -> list[RunEvent]:
        """Add `data` after the event `after`; all events since then, as control may have come in between.

        Repeating an append that was stored before changes nothing. Raises `LeaseLost`, `RunEnded`, `RunPaused`,
        `RunMoved` or `InvalidTransition`, and `Forbidden` for a tool that is denied to the run's caller.
        """
        if any(isinstance(item, (Created, Claimed, Killed, Exited, *WITNESSED)) for item in data):
            raise InvalidInput("a host adds only what happens within its claim")
        async with AsyncExitStack() as counted:
            for item in data:
                if isinstance(item, ToolCalled) and (await self._load(run)).ended_at is None:
                    await self._require_permit(run, item.name)
                    await counted.enter_async_context(self.budgets.tool_called(run, item.call_id))
            async with self._lock(run):
                return await self._append(run, fence, after, data)

    async def _append(self, run: str, fence: int, after: int, data: Sequence[Data]) -> list[RunEvent]:
        state = await self._load(run)
        missed: list[RunEvent] = []
        if state.seq > after and fence == state.fence:
            missed = await self._records.events(run, after=after)
            own = [event.data for event in missed if not isinstance(event.data, WITNESSED)]
            if own and own == await self.around.vaults.redacted(run, state.request, data):
                return missed
            after = state.seq if not own else after
        await self.held(run, fence)
        if after != state.seq:
            raise Conflict(f"the log is at event {state.seq}, not {after}", run=run)
        return [*missed, *(await self._write(run, state, data))[1]]

    async def _require_permit(self, run: str, tool: str) -> None:
        if self.deny and permits.denied(tool, permits.patterns(self.deny, caller := await caller_of(self._load, run))):
            raise Forbidden(f"the tool {tool!r} is denied to {caller}", hint="`tools.deny` in llmagentos.yaml")

    async def held(self, run: str, fence: int) -> Log:
        """The run's state, for who holds its lease. Raises `LeaseLost` or `RunEnded`."""
        state = await self._load(run)
        if state.ended_at is not None:
            raise RunEnded(f"the run {run} has ended", run=run)
        self._leases.check(run, fence)
        return state

    def renew(self, run: str, fence: int) -> float:
        """Keep the lease: how long it lasts now, in seconds. Raises `LeaseLost`."""
        self._leases.renew(run, fence)
        return self._leases.ttl

    async def release(self, run: str, fence: int) -> None:
        """Give the run up so that another host can take it at once."""
        if self._leases.release(run, fence):
            await to_the_end(self._given_up(run, fence))

    async def _given_up(self, run: str, fence: int) -> None:
        await self._records.released(run, fence)
        await self.offer(run)

    async def host_of(self, run: str) -> str:
        """Whose run it is. Raises `NotFound`."""
        return (await self._row(run)).host

    async def host_of_live(self, run: str) -> str:
        """Whose run it is, while it may call models. Raises `NotFound`, `RunEnded` or `RunPaused`.

        A program may while it is paused too: its calls wait at the gate.
        """
        row = await self._row(run)
        if row.state.ended:
            raise RunEnded(f"the run {run} has ended", run=run)
        if row.state is RunState.PAUSED and row.host != PROGRAM:
            raise RunPaused(f"the run {run} is paused", run=run)
        return row.host

    async def _row(self, run: str) -> Row:
        if (row := await self._records.row(run)) is None:
            raise NotFound(f"there is no run {run!r}")
        return row

    # Said from outside ---------------------------------------------------------------------------

    async def note(self, run: str, data: Data, *, drop_lease: bool = False) -> Log:
        """Add what no host says of its run, but people or the server. Whoever has the run loses it with `drop_lease`.

        Raises `NotFound`, `RunEnded`, `RunPaused` or `InvalidTransition`.
        """
        async with self._lock(run):
            state, _ = await self._write(run, await self._load(run), [data])
            if drop_lease:
                self._leases.drop(run)
        return state

    async def close(self, run: str, fence: int, data: Answered | Exited) -> Log:
        """The end of a program, told by who holds its lease. Raises `LeaseLost` or `RunEnded`."""
        async with self._lock(run):
            state = await self._load(run)
            if state.ended_at is None:
                self._leases.check(run, fence)
            return (await self._write(run, state, [data]))[0]

    async def state(self, run: str) -> Log:
        """What the run's events add up to now. Raises `NotFound`."""
        return await self._load(run)

    async def offer(self, run: str) -> None:
        """Tell the run's hosts that it can be taken, if nobody has it."""
        row = await self._records.row(run)
        if row is not None and self._leases.live(run) is None:
            self._hub.publish(claims_topic(row.host), run)

    # The one place that writes --------------------------------------------------------------------

    async def _write(
        self, run: str, state: Log, data: Iterable[Data], *, holder: str | None = None
    ) -> tuple[Log, list[RunEvent]]:
        now = self._clock.time()
        data = await self.around.vaults.redacted(run, state.request, data)
        events = [RunEvent(state.seq + i, now, item) for i, item in enumerate(data, 1)]
        for event in events:
            state = runlog.apply(state, event)
        await to_the_end(self._store(run, state, events, holder))  # else nobody would hear of what may be stored
        return state, events

    async def _store(self, run: str, state: Log, events: Sequence[RunEvent], holder: str | None) -> None:
        waits = state.state is RunState.WAITING  # for hours perhaps: nobody has it meanwhile, after a restart neither
        try:
            await self._records.append(
                self._summary(run, state), events, fence=state.fence, holder="" if waits else holder
            )
        except BaseException:
            self._known.drop(run)  # a commit may or may not have happened: read it again
            self.drafts.drop(run)
            raise
        self._known.put(run, state)
        if waits or state.ended_at is not None:
            self._leases.drop(run)
            self._held_back.pop(run, None)
        if state.ended_at is not None:
            await self.around.vaults.ended(run, state.request)
        self._publish(run, state, events)

    def _publish(self, run: str, state: Log, events: Sequence[RunEvent]) -> None:
        for told in self.on_change:
            told(run, state, events)
        for event in events:
            self._hub.publish(run_topic(run), event)
        self._hub.publish("runs", self._summary(run, state))

    def _summary(self, run: str, state: Log) -> RunSummary:
        return replace(runlog.summary(run, state), money=self.cost(state))

    async def _load(self, run: str) -> Log:
        known = self._known.get(run)
        if known is not None:
            return known
        events = await self._records.events(run)
        if not events:
            raise NotFound(f"there is no run {run!r}", hint="`llmctl ps -a` lists runs")
        state = runlog.fold(events)
        self._known.put(run, state)
        return state

    def _lock(self, run: str) -> asyncio.Lock:
        """One writer of a run at a time; a lock is there for as long as somebody holds it or waits for it."""
        return self._writing.setdefault(run, asyncio.Lock())

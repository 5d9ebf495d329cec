"""The nodes' side of jobs: each node works through its own queue, one job at a time.

A claim gives a fencing token: what comes with an older token is refused, so that a node agent that was replaced
cannot write. The token is stored with the job on its node, and that one decides, in the transaction of what it
guards: several servers on one database may answer one node, and none remembers more than another. It has no end in
time, because nobody but its node may take up the job: one that was cut off goes on with it. A node that claims again
while its job runs (it was restarted) gets the same job with a new token and goes on from what it knows; the job is
never handed out as new. Another attempt of a job is one that ended first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from llmagentos.api.bounded import fit
from llmagentos.api.jobs import (
    RENEW_S,
    Ack,
    Claimed,
    EventGap,
    Finish,
    Inventory,
    JobEvent,
    LogLine,
    NodeJob,
    Recap,
    TaskResult,
)
from llmagentos.core import log, metrics, tracing
from llmagentos.core.clock import Clock
from llmagentos.core.errors import NotFound
from llmagentos.core.events import Hub
from llmagentos.fleet.job_news import require_there
from llmagentos.fleet.job_states import ENDS, WORKING, WrongState, step
from llmagentos.fleet.job_writer import JobWriter
from llmagentos.fleet.looks import Looks
from llmagentos.kernel.leases import LeaseLost
from llmagentos.storage.gathering import Gathered
from llmagentos.storage.host_changes import HostStep, HostWish
from llmagentos.storage.job_changes import Changes, Seen
from llmagentos.storage.job_tables import HostRow, JobRow
from llmagentos.storage.jobs import JobRecords

LEASE_S = 30.0
"""A node at work asks at least each third of it whether it is to go on."""
MAX_EVENTS_PER_HOST = 50_000
"""Further ones of an attempt on a node are left out of the job, but for the recap; a line says so."""
MAX_BACKOFF_S = 86_400.0
RENEWALS_PER_S = 200
"""Of all nodes together; then they renew less often, down to a third of the lease."""
KEPT_JOBS = 32
"""Jobs whose inventory is kept in memory for their nodes."""

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    row: JobRow
    inventory: Inventory


class NodeQueues:
    """All nodes' queues. `closed` says which of some nodes take no new jobs.

    `several`: other servers may work on the same database.
    """

    def __init__(
        self,
        records: JobRecords,
        writer: JobWriter,
        hub: Hub,
        clock: Clock,
        *,
        closed: Callable[[Sequence[str]], Awaitable[Collection[str]]],
        several: bool = False,
    ) -> None:
        self._looks = Looks(several=several)
        self._records = records
        self._writer = writer
        self._hub = hub
        self._clock = clock
        self._closed = closed
        self._head = Gathered(self._heads)
        self._at_work = Gathered(self._working)
        self._jobs: dict[int, _Kept] = {}
        self._reading: dict[str, str] = {}  # by node the bundle of the job that it holds

    async def claim(self, node: str, *, wait: float) -> Claimed:
        """The node's next job, waiting up to `wait` seconds for one. Raises `Unauthenticated` once it is revoked."""
        end = self._clock.monotonic() + wait
        with self._hub.subscribe(f"queue:{node}") as wakes, self._looks.waiting():
            while True:
                taken = await self._take(node)
                left = end - self._clock.monotonic()
                if taken is not None or left <= 0:
                    return Claimed(taken, LEASE_S)
                try:
                    require_there(node, await self._looks.next(wakes, left))
                except (TimeoutError, StopAsyncIteration):
                    return Claimed(None, LEASE_S)

    async def _take(self, node: str) -> NodeJob | None:
        while (first := await self._head(node)) is not None:
            kept = await self._kept(first.job)
            if kept.inventory.span is not None and first.state not in WORKING:
                await self._records.shares.begin(first.job)

            def decide(_: JobRow, host: HostRow) -> HostStep:
                started = host.started if host.started is not None else self._clock.time()
                values = {"state": step(host.state, "claim"), "fence": host.fence + 1, "started": started}
                again = host.state == "queued" and host.attempt > 1
                return HostStep(values, lines=[f"attempt {host.attempt} begins"] if again else [])

            try:
                with tracing.span("claim job", llmagentos__job=first.job, llmagentos__node=node):
                    done = await self._writer.change_on(HostWish(first.job, node, f"node:{node}", decide))
            except WrongState:  # cancelled between the two steps: look again
                continue
            with log.bind(job_id=str(first.job), node=node):
                resumed = first.state != "queued"
                _log.info("job claimed", fence=done.host.fence, resumed=resumed, attempt=first.attempt)
            self._reading[node] = kept.row.spec.bundle
            return _node_job(kept, done.host, before=first)
        return None

    async def _heads(self, nodes: Sequence[str]) -> list[HostRow | None]:
        heads = await self._records.heads(nodes)
        idle = [node for node, first in heads.items() if first.state not in WORKING]
        closed = await self._closed(idle) if idle else ()
        return [None if node in closed else heads.get(node) for node in nodes]

    async def _kept(self, job: int) -> _Kept:
        """What does not change of a job; its nodes ask for it one after the other."""
        found = self._jobs.get(job)
        if found is None:
            row = await self._records.find(job)
            assert row is not None
            found = self._jobs[job] = _Kept(row, await self._records.inventory(job))
            if len(self._jobs) > KEPT_JOBS:
                del self._jobs[next(iter(self._jobs))]
        return found

    async def require(self, node: str, job: int, fence: int) -> HostRow:
        """Where the job stands on the node. Raises `LeaseLost` unless the node holds it with this token."""
        return await self._at_work((job, node, fence))

    async def renew(self, node: str, job: int, fence: int) -> Ack:
        """What the node is to know while it works. Raises `LeaseLost` when the job has to be claimed again."""
        return self._ack(await self.require(node, job, fence))

    async def append(self, node: str, job: int, fence: int, events: Sequence[JobEvent]) -> Ack:
        """Append events; those known already are skipped. Raises `LeaseLost`, or `EventGap` when some are missing."""
        shortened = [fit(event) for event in events]

        def decide(_: JobRow, host: HostRow) -> HostStep:
            _require_held(host, fence)
            next_seq, kept = _new(host, shortened)
            return HostStep({"next_seq": next_seq} if next_seq != host.next_seq else {}, kept)

        done = await self._writer.change_on(HostWish(job, node, f"node:{node}", decide))
        for record in done.records:
            if isinstance(record.event, TaskResult):
                metrics.TASK_RESULTS.labels(record.event.status).inc()
        return self._ack(done.host)

    def _ack(self, host: HostRow) -> Ack:
        pace = min(LEASE_S / 3, max(RENEW_S, len(self._reading) / RENEWALS_PER_S))
        return Ack(host.next_seq, host.state == "cancelling", LEASE_S, pace)

    async def _working(self, held: Sequence[tuple[int, str, int]]) -> list[HostRow | Exception]:
        found = await self._records.working(sorted({node for _, node, _ in held}))
        answers: list[HostRow | Exception] = []
        for job, node, fence in held:
            host = found.get((job, node))
            answers.append(host if host is not None and host.fence == fence else lease_lost(job, fence))
        return answers

    async def finish(self, node: str, job: int, end: Finish) -> None:
        """The job ended on this node. Said again with the same token it changes nothing."""
        if end.message is not None:  # as a tool printed it: PostgreSQL's text holds no NUL, and this has to be kept
            end = msgspec.structs.replace(end, message=end.message.replace("\0", ""))

        def decide(row: JobRow, host: HostRow) -> HostStep:
            if host.fence == end.fence and host.state not in WORKING:
                return HostStep()
            _require_held(host, end.fence)
            if (again := self._again(row, host, end)) is not None:
                return again
            recap = msgspec.json.encode(end.recap).decode() if end.recap else None
            status = "failed" if host.expired and end.status == "cancelled" else end.status
            after = step(host.state, status)
            stopped = after == "cancelled" or host.expired
            message = (host.message if stopped else None) or end.message
            return HostStep(self._writer.entering(after, message=message, exit_code=end.exit_code, recap=recap))

        with (
            tracing.span("finish job", llmagentos__job=job, llmagentos__node=node, llmagentos__status=end.status),
            log.bind(job_id=str(job), node=node),
        ):
            done = await self._writer.change_on(HostWish(job, node, f"node:{node}", decide))
            if not done.changed:
                return
            if done.ended:
                self._jobs.pop(job, None)
            _log.info("job ended on node", status=end.status, exit_code=end.exit_code)
        self._reading.pop(node, None)
        self._hub.publish(f"queue:{node}", job)

    def _again(self, row: JobRow, host: HostRow, end: Finish) -> HostStep | None:
        """The change to another attempt; None when this end is one for good."""
        rule = row.spec.retries
        if rule is None or end.status not in rule.on or host.attempt > rule.max or host.state != "running":
            return None
        wait = min(MAX_BACKOFF_S, rule.backoff_s * 2 ** (host.attempt - 1))
        why = f": {end.message}" if end.message else f" with exit code {end.exit_code}"
        text = f"attempt {host.attempt} {end.status}{why}; attempt {host.attempt + 1} of {rule.max + 1} in {wait:g} s"
        values: dict[str, Any] = {
            "state": step(host.state, "retry"),
            "message": text[:4096],
            "attempt": host.attempt + 1,
            "not_before": self._clock.time() + wait,
            "next_seq": 1,
            "started": None,
        }
        return HostStep(values, lines=[text[:4096]])

    async def may_read(self, node: str, digest: str) -> bool:
        """Whether a job in the node's queue needs this bundle."""
        if self._reading.get(node) == digest:
            return True
        for host in await self._records.queue(node):
            row = await self._records.find(host.job)
            if row is not None and row.spec.bundle == digest:
                return True
        return False

    async def drop_node(self, node: str) -> None:
        """End everything in the queue of a node that was removed."""
        self._reading.pop(node, None)
        for host in await self._records.queue(node, held=True):

            def decide(seen: Seen) -> Changes:
                current = mine(seen.hosts, node)
                if current.state in ENDS:
                    return Changes()
                gone = self._writer.entering(step(current.state, "remove"), message="the node was removed")
                return Changes({node: gone})

            await self._writer.change(host.job, "system", decide)


def lease_lost(job: int, fence: int) -> LeaseLost:
    """The answer to a node that does not hold the job with this token."""
    return LeaseLost(f"the lease on job {job} with token {fence} is over: it has ended there, or was claimed again")


def _require_held(host: HostRow, fence: int) -> None:
    if host.state not in WORKING or host.fence != fence:
        raise lease_lost(host.job, fence)


def _new(host: HostRow, events: Sequence[JobEvent]) -> tuple[int, list[JobEvent]]:
    """The node's next number, and of `events` those to keep."""
    fresh = [event for event in events if event.seq >= host.next_seq]
    for expected, event in enumerate(fresh, host.next_seq):
        if event.seq != expected:
            raise EventGap(f"event {event.seq} came, but {expected} is the next", next_seq=host.next_seq)
    kept: list[JobEvent] = []
    for event in fresh:
        if event.seq <= MAX_EVENTS_PER_HOST or isinstance(event, Recap):
            kept.append(event)
        elif event.seq == MAX_EVENTS_PER_HOST + 1:
            text = f"over {MAX_EVENTS_PER_HOST} events: further ones are not kept"
            kept.append(LogLine(seq=event.seq, at=event.at, level="warning", text=text))
    return host.next_seq + len(fresh), kept


def mine(hosts: list[HostRow], node: str) -> HostRow:
    """The job on `node`. Raises `NotFound` for a job of others."""
    for host in hosts:
        if host.node == node:
            return host
    raise _not_here(node)


def _node_job(kept: _Kept, now: HostRow, *, before: HostRow) -> NodeJob:
    spec = kept.row.spec
    inventory = msgspec.structs.replace(
        kept.inventory,
        sealed=_of(now.node, kept.inventory.sealed),
        sealed_variables=_of(now.node, kept.inventory.sealed_variables),
    )
    return NodeJob(
        job=now.job,
        fence=now.fence,
        host=now.node,
        bundle=spec.bundle,
        playbook=spec.playbook,
        inventory=inventory,
        resumed=before.state != "queued",
        next_seq=now.next_seq,
        cancel=now.state == "cancelling",
        local=kept.row.local,
        extra_vars=spec.extra_vars,
        literal=spec.literal,
        check=spec.check,
        diff=spec.diff,
        tags=spec.tags,
        skip_tags=spec.skip_tags,
        verbosity=spec.verbosity,
        start_at_task=spec.start_at_task,
        kind=spec.kind,
        timeout_s=spec.timeout_s,
        attempt=now.attempt,
    )


def _of(node: str, boxes: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {node: boxes[node]} if node in boxes else {}


def _not_here(node: str) -> NotFound:
    return NotFound(f"this job is not for node {node!r}")

"""The nodes' side of jobs: each node works through its own queue, one job at a time.

A claim is a lease with a fencing token: what comes with an older token is refused, so that a node
agent that was replaced cannot write. A node that claims again while its job runs (it was restarted, or
was away) gets the same job with a new token and goes on from what it knows; the job is never handed
out as new. Another attempt of a job is one that ended first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from llmagentos.api.bounded import fit
from llmagentos.api.jobs import (
    Ack,
    Claimed,
    EventGap,
    Finish,
    Inventory,
    Job,
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
from llmagentos.fleet.job_states import ENDS, WORKING, WrongState, step
from llmagentos.fleet.job_writer import JobWriter
from llmagentos.kernel.leases import LeaseTable
from llmagentos.storage.job_changes import Changes, Seen
from llmagentos.storage.job_tables import HostRow
from llmagentos.storage.jobs import JobRecords

LEASE_S = 30.0
MAX_EVENTS_PER_HOST = 50_000
"""Further ones of an attempt on a node are left out of the job, but for the recap; a line says so."""
MAX_BACKOFF_S = 86_400.0

_log = log.get(__name__)


class NodeQueues:
    """All nodes' queues. `is_open` says whether a node takes new jobs."""

    def __init__(
        self,
        records: JobRecords,
        writer: JobWriter,
        hub: Hub,
        clock: Clock,
        *,
        is_open: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._records = records
        self._writer = writer
        self._hub = hub
        self._clock = clock
        self._is_open = is_open
        self._leases = LeaseTable(clock, LEASE_S)

    async def start(self) -> None:
        """Take up the leases that storage remembers: each lives for one full term from now."""
        self._leases.advance(await self._records.highest_fence())
        for node, queue in (await self._records.queues()).items():
            for host in queue:
                if host.state in WORKING:
                    self._leases.restore(_key(host.job, node), node, host.fence)

    async def claim(self, node: str, *, wait: float) -> Claimed:
        """The node's next job, waiting up to `wait` seconds for one."""
        end = self._clock.monotonic() + wait
        with self._hub.subscribe(f"queue:{node}") as wakes:
            while True:
                taken = await self._take(node)
                left = end - self._clock.monotonic()
                if taken is not None or left <= 0:
                    return Claimed(taken, LEASE_S)
                try:
                    await wakes.next(left)
                except (TimeoutError, StopAsyncIteration):
                    return Claimed(None, LEASE_S)

    async def _take(self, node: str) -> NodeJob | None:
        while queue := await self._records.queue(node):
            first = queue[0]
            if first.state not in WORKING and not await self._is_open(node):
                return None
            self._leases.advance(first.fence)  # another server on the same database may have given it
            lease = self._leases.grant(_key(first.job, node), node)

            def decide(seen: Seen, token: int = lease.token) -> Changes:
                host = mine(seen.hosts, node)
                started = host.started if host.started is not None else self._clock.time()
                changes = Changes({node: {"state": step(host.state, "claim"), "fence": token, "started": started}})
                if host.state == "queued" and host.attempt > 1:
                    changes.lines.append((node, f"attempt {host.attempt} begins"))
                return changes

            try:
                with tracing.span("claim job", llmagentos__job=first.job, llmagentos__node=node):
                    job = await self._writer.change(first.job, f"node:{node}", decide)
            except WrongState:  # cancelled between the two steps: look again
                self._leases.release(lease.key, lease.token)
                continue
            with log.bind(job_id=str(first.job), node=node):
                _log.info("job claimed", fence=lease.token, resumed=first.state != "queued", attempt=first.attempt)
            return await self._node_job(job, first, lease.token)
        return None

    async def _first(self, queue: Sequence[HostRow]) -> HostRow:
        """A job whose plays span nodes and that has begun elsewhere goes before others: its nodes wait for this one.

        The one that began first on any node counts first, on every node: so no two jobs wait for each other.
        """
        first = queue[0]
        if first.state in WORKING:
            return first
        if len(queue) > 1 and (begun := await self._records.shares.begun([host.job for host in queue])) is not None:
            first = next(host for host in queue if host.job == begun)
        if (await self._records.inventory(first.job)).span is not None:
            await self._records.shares.begin(first.job)
        return first

    def check(self, node: str, job: int, fence: int) -> None:
        """Raise `LeaseLost` unless the node holds the job with this token."""
        self._leases.check(_key(job, node), fence)

    async def _node_job(self, job: Job, before: HostRow, fence: int) -> NodeJob:
        row = await self._records.find(before.job)
        assert row is not None
        spec = row.spec  # with its secrets, which `job` does not tell
        now = next(host.state for host in job.hosts if host.node == before.node)
        return NodeJob(
            job=row.id,
            fence=fence,
            host=before.node,
            bundle=spec.bundle,
            playbook=spec.playbook,
            inventory=await self._inventory(row.id, before.node),
            resumed=before.state != "queued",
            next_seq=before.next_seq,
            cancel=now == "cancelling",
            local=row.local,
            extra_vars=spec.extra_vars,
            check=spec.check,
            diff=spec.diff,
            tags=spec.tags,
            skip_tags=spec.skip_tags,
            verbosity=spec.verbosity,
            start_at_task=spec.start_at_task,
            kind=spec.kind,
            timeout_s=spec.timeout_s,
            attempt=before.attempt,
        )

    async def _inventory(self, job: int, node: str) -> Inventory:
        found = await self._records.inventory(job)
        mine = {name: boxes for name, boxes in found.sealed.items() if name == node}
        return msgspec.structs.replace(found, sealed=mine)

    async def renew(self, node: str, job: int, fence: int) -> Ack:
        """Keep a job. Raises `LeaseLost` when it has to be claimed again."""
        self._leases.renew(_key(job, node), fence)
        return await self._ack(node, job)

    async def append(self, node: str, job: int, fence: int, events: Sequence[JobEvent]) -> Ack:
        """Append events; those known already are skipped. Raises `LeaseLost`, or `EventGap` when some are missing."""
        self._leases.renew(_key(job, node), fence)
        shortened = [fit(event) for event in events]
        _, records = await self._records.log.append(job, node, lambda host: _new(host, shortened))
        for record in records:
            self._hub.publish(f"job:{job}", record)
            if isinstance(record.event, TaskResult):
                metrics.TASK_RESULTS.labels(record.event.status).inc()
        return await self._ack(node, job)

    async def _ack(self, node: str, job: int) -> Ack:
        host = await self._host(node, job)
        return Ack(host.next_seq, host.state == "cancelling", LEASE_S)

    async def _host(self, node: str, job: int) -> HostRow:
        host = await self._records.host(job, node)
        if host is None:
            raise _not_here(node)
        return host

    async def finish(self, node: str, job: int, end: Finish) -> None:
        """The job ended on this node. Said again with the same token it changes nothing."""
        host = await self._host(node, job)
        if host.fence == end.fence and host.state not in WORKING:
            return
        self._leases.check(_key(job, node), end.fence)

        def decide(seen: Seen) -> Changes:
            current = mine(seen.hosts, node)
            if (again := self._again(seen, current, end)) is not None:
                return again
            recap = msgspec.json.encode(end.recap).decode() if end.recap else None
            status = "failed" if current.expired and end.status == "cancelled" else end.status
            after = step(current.state, status)
            stopped = after == "cancelled" or current.expired
            message = (current.message if stopped else None) or end.message
            return Changes({node: self._writer.entering(after, message=message, exit_code=end.exit_code, recap=recap)})

        with (
            tracing.span("finish job", llmagentos__job=job, llmagentos__node=node, llmagentos__status=end.status),
            log.bind(job_id=str(job), node=node),
        ):
            changed = await self._writer.change(job, f"node:{node}", decide)
            if changed.summary.ended is not None:
                await self._records.shares.forget(job)
            _log.info("job ended on node", status=end.status, exit_code=end.exit_code)
        self._leases.release(_key(job, node), end.fence)
        self._hub.publish(f"queue:{node}", job)

    def _again(self, seen: Seen, host: HostRow, end: Finish) -> Changes | None:
        """The change to another attempt; None when this end is one for good."""
        rule = seen.row.spec.retries
        if rule is None or end.status not in rule.on or host.attempt > rule.max or host.state != "running":
            return None
        wait = min(MAX_BACKOFF_S, rule.backoff_s * 2 ** (host.attempt - 1))
        why = f": {end.message}" if end.message else f" with exit code {end.exit_code}"
        text = f"attempt {host.attempt} {end.status}{why}; attempt {host.attempt + 1} of {rule.max + 1} in {wait:g} s"
        values: dict[str, Any] = {
            "message": text[:4096],
            "attempt": host.attempt + 1,
            "not_before": self._clock.time() + wait,
            "next_seq": 1,
            "started": None,
        }
        return Changes({host.node: {"state": step(host.state, "retry"), **values}}, lines=[(host.node, text[:4096])])

    async def may_read(self, node: str, digest: str) -> bool:
        """Whether a job in the node's queue needs this bundle."""
        for host in await self._records.queue(node):
            row = await self._records.find(host.job)
            if row is not None and row.spec.bundle == digest:
                return True
        return False

    async def drop_node(self, node: str) -> None:
        """End everything in the queue of a node that was removed."""
        for host in await self._records.queue(node, held=True):

            def decide(seen: Seen) -> Changes:
                current = mine(seen.hosts, node)
                if current.state in ENDS:
                    return Changes()
                gone = self._writer.entering(step(current.state, "remove"), message="the node was removed")
                return Changes({node: gone})

            await self._writer.change(host.job, "system", decide)
            self._leases.drop(_key(host.job, node))


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


def _not_here(node: str) -> NotFound:
    return NotFound(f"this job is not for node {node!r}")


def _key(job: int, node: str) -> str:
    return f"{job}:{node}"

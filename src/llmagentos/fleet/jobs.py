"""Jobs: checked, queued on their nodes, handed out in order, followed to their end.

Each node works through its own queue strictly in order, one job at a time. A claim is a lease with a
fencing token: what comes with an older token is refused, so that a node agent that was replaced
cannot write. A node that claims again while its job runs (it was restarted, or was away) gets the
same job with a new token and goes on from what it knows; the job is never handed out as new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from llmagentos.api.bounded import fit
from llmagentos.api.jobs import (
    Ack,
    BundleInfo,
    Claimed,
    EventGap,
    Finish,
    HostState,
    Job,
    JobEvent,
    JobHost,
    JobRecord,
    JobSpec,
    JobState,
    JobSummary,
    LogLine,
    NodeJob,
    Recap,
    TaskResult,
)
from llmagentos.core import log, metrics, tracing
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, NotFound, TooLarge
from llmagentos.core.events import Hub
from llmagentos.fleet.job_states import ENDS, WORKING, WrongState, exit_code, overall, step
from llmagentos.fleet.playbooks.plan import Plan, plan
from llmagentos.kernel.leases import LeaseTable
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.jobs import ENDED, HostRow, JobRecords, JobRow

LEASE_S = 30.0
MAX_EVENTS_PER_HOST = 50_000
"""Further ones of a node are left out of the job, but for the recap; a line says so."""
MAX_SPEC_BYTES = 1024 * 1024
MAX_QUEUE = 1000
"""Jobs that may wait on one node."""

_log = log.get(__name__)


class Jobs:
    """All jobs. `nodes` names the nodes there are, `away` says whether one is not answering."""

    def __init__(
        self,
        records: JobRecords,
        blobs: Blobs,
        hub: Hub,
        clock: Clock,
        *,
        nodes: Callable[[], Awaitable[list[str]]],
        away: Callable[[str], bool],
    ) -> None:
        self._records = records
        self._blobs = blobs
        self._hub = hub
        self._clock = clock
        self._nodes = nodes
        self._away = away
        self._leases = LeaseTable(clock, LEASE_S)

    async def start(self) -> None:
        """Take up the leases that storage remembers: each lives for one full term from now."""
        self._leases.advance(await self._records.highest_fence())
        for node, queue in (await self._records.queues()).items():
            for host in queue:
                if host.state in WORKING:
                    self._leases.restore(_key(host.job, node), node, host.fence)

    # --- people -------------------------------------------------------------------------------

    async def keep_bundle(self, digest: str, content: bytes) -> BundleInfo:
        """Store a playbook's directory."""
        await self._blobs.put(digest, content)
        return BundleInfo(digest, len(content))

    async def bundle(self, digest: str) -> BundleInfo:
        """A stored bundle. Raises `NotFound`."""
        size = await self._blobs.touch(digest)
        if size is None:
            raise NotFound(f"there is no bundle {digest}", hint=f"PUT /api/v1/bundles/{digest}")
        return BundleInfo(digest, size)

    async def submit(self, spec: JobSpec, by: str) -> Job:
        """Check a playbook and queue it on its nodes. Raises `InvalidInput` with file:line when it cannot run."""
        size = len(msgspec.json.encode(spec))
        if size > MAX_SPEC_BYTES:
            raise TooLarge(
                f"variables and inventories of {size} bytes are too much for one job: at most {MAX_SPEC_BYTES}",
                hint="put them into files beside the playbook: vars_files, group_vars",
            )
        await self.bundle(spec.bundle)
        content = await self._blobs.get(spec.bundle)
        assert content is not None
        with tracing.span("check playbook", llmagentos__playbook=spec.playbook):
            planned: Plan = await asyncio.to_thread(plan, spec, content, await self._nodes())
        await self._require_room(planned.hosts)
        row = await self._records.create(spec, planned.hosts, planned.inventory, local=planned.local, by=by)
        for node in planned.hosts:
            self._hub.publish(f"queue:{node}", row.id)
        with log.bind(job_id=str(row.id)):
            _log.info("job queued", playbook=spec.playbook, nodes=len(planned.hosts), by=by)
        job = await self.show(row.id)
        self._hub.publish("jobs", job.summary)
        return job

    async def _require_room(self, nodes: Sequence[str]) -> None:
        queues = await self._records.queues()
        for node in nodes:
            if len(queues.get(node, ())) >= MAX_QUEUE:
                raise Conflict(
                    f"the queue of node {node!r} is full: {MAX_QUEUE} jobs wait",
                    hint="`llmctl jobs` lists them, `llmctl job cancel N` takes one out",
                )

    async def listing(self, *, limit: int, before: int | None = None, node: str | None = None) -> list[JobSummary]:
        """Jobs, newest first."""
        rows = await self._records.listing(limit=limit, before=before, node=node)
        hosts = await self._records.hosts(row.id for row in rows)
        return [_summary(row, hosts.get(row.id, [])) for row in rows]

    async def show(self, job: int) -> Job:
        """One job. Raises `NotFound`."""
        row = await self._require(job)
        hosts = (await self._records.hosts([job])).get(job, [])
        return self._job(row, hosts, await self._ahead(job, hosts))

    async def _ahead(self, job: int, hosts: list[HostRow]) -> dict[str, int]:
        waiting = [host.node for host in hosts if host.state == "queued"]
        if not waiting:
            return {}
        queues = await self._records.queues()
        return {node: sum(host.job < job for host in queues.get(node, ())) for node in waiting}

    async def cancel(self, job: int, by: str) -> Job:
        """Take the job out of the queues and tell nodes to stop it where it runs. Raises `WrongState` once ended."""
        row = await self._require(job)
        if row.state in ENDED:
            raise WrongState(f"job {job} has ended: {row.state}")

        def decide(hosts: list[HostRow]) -> dict[str, dict[str, Any]]:
            return {
                host.node: self._entering(step(host.state, "cancel"), message=f"cancelled by {by}")
                for host in hosts
                if host.state not in ENDS
            }

        return await self._change(job, decide)

    async def _require(self, job: int) -> JobRow:
        row = await self._records.find(job)
        if row is None:
            raise NotFound(f"there is no job {job}", hint="`llmctl jobs` lists them")
        return row

    async def events(self, job: int, *, after: int, limit: int) -> list[JobRecord]:
        """Stored events after the id `after`."""
        return await self._records.events(job, after=after, limit=limit)

    async def last_events(self, job: int, *, limit: int) -> list[JobRecord]:
        """The newest events, oldest first."""
        return await self._records.last_events(job, limit=limit)

    # --- nodes --------------------------------------------------------------------------------

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
            lease = self._leases.grant(_key(first.job, node), node)

            def decide(hosts: list[HostRow], token: int = lease.token) -> dict[str, dict[str, Any]]:
                host = _mine(hosts, node)
                started = host.started if host.started is not None else self._clock.time()
                return {node: {"state": step(host.state, "claim"), "fence": token, "started": started}}

            try:
                with tracing.span("claim job", llmagentos__job=first.job, llmagentos__node=node):
                    job = await self._change(first.job, decide)
            except WrongState:  # cancelled between the two steps: look again
                self._leases.release(lease.key, lease.token)
                continue
            with log.bind(job_id=str(first.job), node=node):
                _log.info("job claimed", fence=lease.token, resumed=first.state != "queued")
            return await self._node_job(job, first, lease.token)
        return None

    async def _node_job(self, job: Job, before: HostRow, fence: int) -> NodeJob:
        row = await self._require(before.job)
        spec = job.spec
        now = next(host.state for host in job.hosts if host.node == before.node)
        return NodeJob(
            job=row.id,
            fence=fence,
            host=before.node,
            bundle=spec.bundle,
            playbook=spec.playbook,
            inventory=await self._records.inventory(row.id),
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
            timeout_s=spec.timeout_s,
        )

    async def renew(self, node: str, job: int, fence: int) -> Ack:
        """Keep a job. Raises `LeaseLost` when it has to be claimed again."""
        self._leases.renew(_key(job, node), fence)
        return await self._ack(node, job)

    async def append(self, node: str, job: int, fence: int, events: Sequence[JobEvent]) -> Ack:
        """Append events; those known already are skipped. Raises `LeaseLost`, or `EventGap` when some are missing."""
        self._leases.renew(_key(job, node), fence)
        shortened = [fit(event) for event in events]
        _, records = await self._records.append(job, node, lambda host: _new(host, shortened))
        for record in records:
            self._hub.publish(f"job:{job}", record)
            if isinstance(record.event, TaskResult):
                metrics.TASK_RESULTS.labels(record.event.status).inc()
        return await self._ack(node, job)

    async def _ack(self, node: str, job: int) -> Ack:
        host = _mine((await self._records.hosts([job])).get(job, []), node)
        return Ack(host.next_seq, host.state == "cancelling", LEASE_S)

    async def finish(self, node: str, job: int, end: Finish) -> None:
        """The job ended on this node. Said again with the same token it changes nothing."""
        host = _mine((await self._records.hosts([job])).get(job, []), node)
        if host.state in ENDS and host.fence == end.fence:
            return
        self._leases.check(_key(job, node), end.fence)

        def decide(hosts: list[HostRow]) -> dict[str, dict[str, Any]]:
            mine = _mine(hosts, node)
            recap = msgspec.json.encode(end.recap).decode() if end.recap else None
            after = step(mine.state, end.status)
            message = (mine.message if after == "cancelled" else None) or end.message
            return {node: self._entering(after, message=message, exit_code=end.exit_code, recap=recap)}

        with (
            tracing.span("finish job", llmagentos__job=job, llmagentos__node=node, llmagentos__status=end.status),
            log.bind(job_id=str(job), node=node),
        ):
            await self._change(job, decide)
            _log.info("job ended on node", status=end.status, exit_code=end.exit_code)
        self._leases.release(_key(job, node), end.fence)
        self._hub.publish(f"queue:{node}", job)

    async def may_read(self, node: str, digest: str) -> bool:
        """Whether a job in the node's queue needs this bundle."""
        for host in await self._records.queue(node):
            row = await self._records.find(host.job)
            if row is not None and row.spec.bundle == digest:
                return True
        return False

    async def bundle_content(self, digest: str) -> bytes | None:
        """The bytes of a bundle."""
        return await self._blobs.get(digest)

    async def drop_node(self, node: str) -> None:
        """End everything in the queue of a node that was removed."""
        for host in await self._records.queue(node):

            def decide(hosts: list[HostRow]) -> dict[str, dict[str, Any]]:
                mine = _mine(hosts, node)
                if mine.state in ENDS:
                    return {}
                return {node: self._entering(step(mine.state, "remove"), message="the node was removed")}

            await self._change(host.job, decide)
            self._leases.drop(_key(host.job, node))

    async def prune(self, days: float) -> None:
        """Delete jobs that ended more than `days` days ago, and bundles that no job refers to."""
        deleted = 1
        while deleted:
            deleted = await self._records.prune(days=days)
        await self._blobs.prune(await self._records.bundles())

    async def queue_lengths(self) -> dict[str, int]:
        """Jobs that are queued or running, by node."""
        return {node: len(queue) for node, queue in (await self._records.queues()).items()}

    # --- changes ------------------------------------------------------------------------------

    def _entering(self, state: HostState, **values: Any) -> dict[str, Any]:
        return {"state": state, **values} | ({"ended": self._clock.time()} if state in ENDS else {})

    async def _change(self, job: int, decide: Callable[[list[HostRow]], dict[str, dict[str, Any]]]) -> Job:
        row, hosts, ended = await self._records.change(job, decide, _conclude)
        changed = self._job(row, hosts, {})
        self._hub.publish("jobs", changed.summary)
        self._hub.publish(f"job:{job}", changed)
        if ended and row.ended is not None:
            metrics.JOBS_ENDED.labels(row.state).inc()
            metrics.JOB_DURATION.observe(row.ended - row.created)
            with log.bind(job_id=str(job)):
                _log.info("job ended", state=row.state, exit_code=row.exit_code)
        return changed

    def _job(self, row: JobRow, hosts: list[HostRow], ahead: dict[str, int]) -> Job:
        shown = [
            JobHost(h.node, h.state, ahead.get(h.node, 0), h.started, h.ended, h.exit_code, h.recap, h.message)
            for h in hosts
        ]
        waiting = [host.node for host in hosts if host.state not in ENDS and self._away(host.node)]
        return Job(_summary(row, hosts), row.spec, shown, waiting)


def _conclude(hosts: list[HostRow]) -> tuple[JobState, int | None]:
    states = [host.state for host in hosts]
    return overall(states), exit_code(states)


def _summary(row: JobRow, hosts: list[HostRow]) -> JobSummary:
    return JobSummary(
        id=row.id,
        name=row.name,
        state=row.state,
        created=row.created,
        created_by=row.created_by,
        nodes=[host.node for host in hosts],
        modes=[mode for mode in ("check", "diff") if getattr(row.spec, mode)],
        started=row.started,
        ended=row.ended,
        exit_code=row.exit_code,
    )


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


def _mine(hosts: list[HostRow], node: str) -> HostRow:
    for host in hosts:
        if host.node == node:
            return host
    raise NotFound(f"this job is not for node {node!r}")


def _key(job: int, node: str) -> str:
    return f"{job}:{node}"

"""Jobs as people see them: checked, made, listed, cancelled, approved.

Each node works through its own queue (`job_queues`), strictly in order within a priority. What is to
wait for more than its turn (approval, window, lock, batch, next attempt) is held until `job_driver`
lets it into the queues.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec

from llmagentos.api.job_control import JobChange
from llmagentos.api.jobs import BundleInfo, Inventory, Job, JobRecord, JobSpec, JobSummary
from llmagentos.api.vault import PURPOSE, VARIABLES, VaultPassword
from llmagentos.core import log, tracing
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, InvalidInput, NotFound, TooLarge
from llmagentos.core.events import Hub
from llmagentos.fleet.job_approvals import JobApprovals, Rules
from llmagentos.fleet.job_checks import Wanted, check
from llmagentos.fleet.job_gates import cancel
from llmagentos.fleet.job_news import JobNews
from llmagentos.fleet.job_queues import NodeQueues
from llmagentos.fleet.job_states import WORKING, WrongState
from llmagentos.fleet.job_views import summary, whole
from llmagentos.fleet.job_writer import JobWriter
from llmagentos.fleet.vault import Certificates, sealed
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.job_changes import Changes, Seen, masked
from llmagentos.storage.job_tables import ENDED, HostRow, JobRow
from llmagentos.storage.jobs import JobRecords, KeyTaken, NewJob

MAX_SPEC_BYTES = 1024 * 1024
MAX_QUEUE = 1000
"""Jobs that may wait on one node."""

_log = log.get(__name__)


class KeyReused(Conflict):
    """The idempotency key belongs to another request."""

    code = "idempotency_key_reused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What made a job when it is no person's request; `urgent`: before all others in the queues."""

    name: str
    parent: int | None = None
    urgent: bool = False
    nodes: frozenset[str] | None = None
    """Only these of the nodes that the playbook names."""


URGENT = 1000
"""Above every priority that can be asked for."""


async def _none(_: str) -> list[str]:
    return []


async def _nobody(_: Sequence[str]) -> Collection[str]:
    return ()


class Jobs:
    """All jobs.

    `nodes` names the nodes there are, `away` says whether one is not answering, `closed` which of
    some take no new jobs, `missing` which of some are no nodes any more; `windows` are the ones that are known.
    `several`: other servers may work on the same database.
    """

    def __init__(
        self,
        records: JobRecords,
        blobs: Blobs,
        hub: Hub,
        clock: Clock,
        *,
        nodes: Callable[[], Awaitable[Sequence[str]]],
        away: Callable[[str], bool],
        closed: Callable[[Sequence[str]], Awaitable[Collection[str]]] = _nobody,
        missing: Callable[[Sequence[str]], Awaitable[Collection[str]]] = _nobody,
        windows: Collection[str] = (),
        certificates: Certificates = _none,
        approval: Rules = Rules(),
        several: bool = False,
    ) -> None:
        self._records = records
        self._certificates = certificates
        self._blobs = blobs
        self._hub = hub
        self._nodes = nodes
        self._away = away
        self._missing = missing
        self._windows = windows
        self._clock = clock
        self.writer = JobWriter(records, hub, clock, away=away)
        self.approvals = JobApprovals(records, self.writer, hub, clock, approval)
        self.queues = NodeQueues(records, self.writer, hub, clock, closed=closed, several=several)

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

    async def has_bundle(self, digest: str) -> bool:
        """Whether this server has it: its blobs may be its own, while others work on the same database."""
        return await self._blobs.touch(digest) is not None

    async def bundle_content(self, digest: str) -> bytes | None:
        """The bytes of a bundle."""
        return await self._blobs.get(digest)

    async def submit(
        self, spec: JobSpec, by: str, origin: Origin | None = None, *, vault: Sequence[VaultPassword] = ()
    ) -> Job:
        """Check a playbook and queue it on its nodes. Raises `InvalidInput` with file:line when it cannot run.

        A key that was used for the same request leads to its job; for another one `KeyReused` is raised. The
        passwords in `vault` and the spec's secrets are sealed to the nodes' keys: raises `NoKey` for one without.
        """
        encoded = msgspec.json.encode(spec)
        if len(encoded) > MAX_SPEC_BYTES:
            raise TooLarge(
                f"variables and inventories of {len(encoded)} bytes are too much for one job: at most {MAX_SPEC_BYTES}",
                hint="put them into files beside the playbook: vars_files, group_vars",
            )
        request = hashlib.sha256(encoded).hexdigest() if spec.idempotency_key is not None else None
        if (known := await self._known(spec, by, request)) is not None:
            return known
        wanted = await self._checked(spec)
        nodes = [host for host in wanted.hosts if origin is None or origin.nodes is None or host in origin.nodes]
        if not nodes:
            raise InvalidInput(f"{spec.playbook} is for none of the nodes at hand")
        await self._require_room(nodes)
        inventory = await self._inventory(wanted, nodes, origin, vault, spec)
        new = NewJob(
            spec=masked(spec),
            nodes=nodes,
            inventory=inventory,
            local=wanted.local,
            by=by,
            driven=wanted.driven,
            batches=wanted.batches,
            origin=origin.name if origin is not None else None,
            parent=origin.parent if origin is not None else None,
            request=request,
            priority=URGENT if origin is not None and origin.urgent else None,
        )
        try:
            row = await self._records.create(new)
        except KeyTaken:  # asked for twice at once
            known = await self._known(spec, by, request)
            assert known is not None
            return known
        return await self._made(row, new)

    async def _inventory(
        self,
        wanted: Wanted,
        nodes: Sequence[str],
        origin: Origin | None,
        vault: Sequence[VaultPassword],
        spec: JobSpec,
    ) -> Inventory:
        inventory = wanted.inventory
        if nodes != wanted.hosts:  # a batch of a rollout, which is checked not to need the others
            inventory = msgspec.structs.replace(inventory, span=None)
        if origin is not None and origin.parent is not None:  # it needs what its parent was given
            given = await self._records.inventory(origin.parent)
            return msgspec.structs.replace(inventory, sealed=given.sealed, sealed_variables=given.sealed_variables)
        if vault:
            boxes = await sealed(msgspec.json.encode(list(vault)), PURPOSE, nodes, self._certificates)
            inventory = msgspec.structs.replace(inventory, sealed=boxes)
        if spec.secrets:
            secrets = msgspec.json.encode({name: spec.extra_vars[name] for name in spec.secrets})
            boxes = await sealed(secrets, VARIABLES, nodes, self._certificates)
            inventory = msgspec.structs.replace(inventory, sealed_variables=boxes)
        return inventory

    async def _made(self, row: JobRow, new: NewJob) -> Job:
        with log.bind(job_id=str(row.id)):
            _log.info("job queued", playbook=row.name, nodes=len(new.nodes), by=row.created_by, state=row.state)
        self.writer.announcer.tell(JobNews(row.id, row.state), now=True)
        if not new.driven:
            self.writer.announcer.wake(new.nodes, row.id)
        await self._drop_missing(new.nodes)  # one may have been removed since it was chosen
        return await self.show(row.id)

    async def _known(self, spec: JobSpec, by: str, request: str | None) -> Job | None:
        if spec.idempotency_key is None:
            return None
        row = await self._records.by_key(by, spec.idempotency_key)
        if row is None:
            return None
        if row.request != request:
            raise KeyReused(
                f"the idempotency key {spec.idempotency_key!r} belongs to another request: job {row.id}",
                hint="a new request needs a new key",
                job=row.id,
            )
        return await self.show(row.id)

    async def _checked(self, spec: JobSpec) -> Wanted:
        await self.bundle(spec.bundle)
        content = await self._blobs.get(spec.bundle)
        assert content is not None
        with tracing.span("check playbook", llmagentos__playbook=spec.playbook):
            return await asyncio.to_thread(check, spec, content, await self._nodes(), self._windows)

    async def check(self, spec: JobSpec) -> None:
        """Whether it could be queued now. Raises what `submit` raises for a playbook that cannot run."""
        await self._checked(spec)

    async def _require_room(self, nodes: Sequence[str]) -> None:
        lengths = await self._records.lengths(held=True)
        for node in nodes:
            if lengths.get(node, 0) >= MAX_QUEUE:
                raise Conflict(
                    f"the queue of node {node!r} is full: {MAX_QUEUE} jobs wait",
                    hint="`llmctl jobs` lists them, `llmctl job cancel N` takes one out",
                )

    async def listing(self, *, limit: int, before: int | None = None, node: str | None = None) -> list[JobSummary]:
        """Jobs, newest first."""
        rows = await self._records.listing(limit=limit, before=before, node=node)
        hosts = await self._records.hosts(row.id for row in rows)
        return [summary(row, hosts.get(row.id, [])) for row in rows]

    async def show(self, job: int) -> Job:
        """One job. Raises `NotFound`."""
        row = await self._require(job)
        hosts = (await self._records.hosts([job])).get(job, [])
        batches = await self._records.batches(job) if row.driven else []
        return whole(Seen(row, hosts, batches), await self._ahead(job, hosts), self._away)

    async def _ahead(self, job: int, hosts: list[HostRow]) -> dict[str, int]:
        found: dict[str, int] = {}
        waiting = [host.node for host in hosts if host.state == "queued"]
        if len(waiting) == 1:
            queues = {waiting[0]: await self._records.queue(waiting[0])}
        else:
            queues = await self._records.queues() if waiting else {}
        for node in waiting:
            order = [host.job for host in queues.get(node, ())]
            found[node] = order.index(job) if job in order else 0
        return found

    async def _require(self, job: int) -> JobRow:
        row = await self._records.find(job)
        if row is None:
            raise NotFound(f"there is no job {job}", hint="`llmctl jobs` lists them")
        return row

    async def cancel(self, job: int, by: str) -> Job:
        """Take the job out of the queues and tell nodes to stop it where it runs. Raises `WrongState` once ended."""
        row = await self._require(job)
        if row.state in ENDED:
            raise WrongState(f"job {job} has ended: {row.state}")
        cancelled = await self.writer.change(job, by, lambda seen: self._ending(seen, f"cancelled by {by}"))
        for child in await self._records.children(job):
            if child.state not in ENDED:
                await self.writer.change(
                    child.id, by, lambda seen: self._ending(seen, f"job {job} was cancelled by {by}")
                )
        return cancelled

    def _ending(self, seen: Seen, message: str) -> Changes:
        return cancel(seen, self.writer.entering, message)

    async def decide(self, job: int, by: str, *, approved: bool, reason: str | None = None) -> Job:
        """Approve a job or deny it: the first word counts. Raises as `JobApprovals.decide`."""
        await self._require(job)
        return await self.approvals.decide(job, by, approved=approved, reason=reason)

    async def events(self, job: int, *, after: int, limit: int) -> list[JobRecord]:
        """Stored events after the id `after`."""
        return await self._records.log.after(job, after=after, limit=limit)

    async def last_events(self, job: int, *, limit: int, node: str | None = None) -> list[JobRecord]:
        """The newest events (of one node), oldest first."""
        return await self._records.log.last(job, limit=limit, node=node)

    async def last_changes(self, job: int, *, limit: int, node: str | None, hosts: bool) -> list[JobChange]:
        """The newest changes, newest first: of `node`, of all nodes with `hosts`, else of the job as a whole."""
        return await self._records.changes.last(job, limit=limit, node=node, hosts=hosts)

    async def history(self, job: int, *, after: int, limit: int) -> list[JobChange]:
        """Who changed what and when, after the change `after`, oldest first. Raises `NotFound`."""
        await self._require(job)
        return await self._records.changes.history(job, after=after, limit=limit)

    async def prune(self, days: float, *, bundles: Collection[str] = ()) -> None:
        """Delete jobs that ended more than `days` days ago, and what no job refers to and is not in `bundles`."""
        deleted = 1
        while deleted:
            deleted = await self._records.prune(days=days)
        await self._blobs.prune({*await self._records.bundles(), *bundles})

    async def queue_lengths(self) -> dict[str, int]:
        """Jobs that are queued or running, by node."""
        return await self._records.lengths()

    async def works(self, node: str) -> bool:
        """Whether the node works on a job now."""
        return any(host.state in WORKING for host in await self._records.queue(node))

    async def drop_node(self, node: str) -> None:
        """End everything in the queue of a node that was removed."""
        await self.queues.drop_node(node)

    async def drop_lost(self) -> None:
        """End what waits for nodes that were removed by a server that was killed before it came to that."""
        await self._drop_missing([*await self._records.lengths(held=True)])

    async def _drop_missing(self, nodes: Sequence[str]) -> None:
        for node in sorted(await self._missing(nodes)):
            await self.queues.drop_node(node)

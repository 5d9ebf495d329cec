"""Jobs: what was asked, and its state on each node.

A node's queue is the rows of `job_hosts` with its name that were let run and have not ended, by
priority and job id: there is no second copy to keep in step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import ColumnElement, Select, case, delete, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from llmagentos.api.job_control import Approval, Batch, Waiting
from llmagentos.api.jobs import Inventory, JobSpec, JobState
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict
from llmagentos.storage.database import Database
from llmagentos.storage.host_changes import HostChanges
from llmagentos.storage.job_changes import JobChanges
from llmagentos.storage.job_events import JobEvents
from llmagentos.storage.job_tables import (
    ALL,
    BATCHES,
    ENDED,
    HISTORY,
    HOSTS,
    JOB_COLUMNS,
    JOBS,
    LOCKS,
    OPEN,
    HostRow,
    JobRow,
    batch_row,
    host_row,
    job_row,
    to_json,
)
from llmagentos.storage.shares import SPANS, ShareRecords

_WORKING = ("running", "cancelling")


class KeyTaken(Conflict):
    """There is a job with this idempotency key already."""

    code = "key_taken"


class ParentEnded(Conflict):
    """What the job is a part of has ended meanwhile."""

    code = "parent_ended"


@dataclass(frozen=True, slots=True)
class Driven:
    """A job that something more than its queues decides on; `holder` is the job that has its lock."""

    id: int
    lock: str | None
    holder: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to store. `batches` are its nodes by batch; with any, or `driven`, nothing is queued yet."""

    spec: JobSpec
    nodes: Sequence[str]
    inventory: Inventory
    local: bool
    by: str
    driven: bool = False
    batches: Sequence[Sequence[str]] = ()
    origin: str | None = None
    parent: int | None = None
    request: str | None = None
    priority: int | None = None
    """Its place in the queues, when not the spec's."""


class JobRecords:
    """Queries over the jobs; `changes` changes them, `log` has what nodes told, `shares` what they tell each other."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.changes = JobChanges(database, clock)
        self.host_changes = HostChanges(database, clock)
        self.log = JobEvents(database)
        self.shares = ShareRecords(database, clock)

    async def create(self, new: NewJob) -> JobRow:
        """A new job: queued on its nodes, or held there. Raises `KeyTaken`, and `ParentEnded`."""
        try:
            async with self._database.write() as connection:
                return await self._create(connection, new)
        except IntegrityError:
            raise KeyTaken("there is a job with this idempotency key already") from None

    async def _create(self, connection: AsyncConnection, new: NewJob) -> JobRow:
        spec, now = new.spec, self._clock.time()
        if new.parent is not None:  # locked: whoever ends the parent sees this one, or this one sees its end
            parent = select(JOBS.c.state).where(JOBS.c.id == new.parent).with_for_update()
            if (await connection.execute(parent)).scalar_one_or_none() in (*ENDED, None):
                raise ParentEnded(f"job {new.parent} has ended")
        approval = Approval() if spec.approval is not None else None
        state: JobState = "waiting_approval" if approval is not None else "waiting" if new.driven else "queued"
        done = await connection.execute(
            insert(JOBS).values(
                name=spec.playbook,
                bundle=spec.bundle,
                spec=to_json(spec),
                inventory=to_json(new.inventory),
                local=new.local,
                state=state,
                created=now,
                created_by=new.by,
                last_event=0,
                last_change=1,
                priority=spec.priority,
                driven=new.driven,
                lock=spec.lock,
                released=None if new.driven else now,
                approval=to_json(approval) if approval is not None else None,
                waiting=to_json(Waiting("approval")) if approval is not None else None,
                origin=new.origin,
                parent=new.parent,
                key=spec.idempotency_key,
                request=new.request,
            )
        )
        key = done.inserted_primary_key
        assert key is not None
        job = int(key[0])
        await self._create_hosts(connection, job, new)
        line = {"at": now, "by": new.by, "what": "job", "after": state, "attempt": 1, "message": new.origin}
        await connection.execute(insert(HISTORY).values(job=job, id=1, **line))
        return job_row((await connection.execute(select(*JOB_COLUMNS).where(JOBS.c.id == job))).one())

    async def _create_hosts(self, connection: AsyncConnection, job: int, new: NewJob) -> None:
        batch_of = {node: number for number, nodes in enumerate(new.batches, 1) for node in nodes}
        priority = new.spec.priority if new.priority is None else new.priority
        common: dict[str, object] = {"job": job, "priority": priority, "state": "held" if new.driven else "queued"}
        common |= {"fence": 0, "next_seq": 1, "attempt": 1, "expired": False}
        rows = [common | {"node": node, "position": i, "batch": batch_of.get(node)} for i, node in enumerate(new.nodes)]
        await connection.execute(insert(HOSTS), rows)
        kinds = ["batch"] * len(new.batches)
        if new.spec.rollout is not None and new.spec.rollout.rollback is not None:
            kinds.append("rollback")
        if kinds:
            waiting = {"job": job, "state": "waiting", "at": self._clock.time()}
            await connection.execute(
                insert(BATCHES), [waiting | {"number": number, "kind": kind} for number, kind in enumerate(kinds, 1)]
            )

    async def find(self, job: int) -> JobRow | None:
        """One job."""
        return await self._one(select(*JOB_COLUMNS).where(JOBS.c.id == job))

    async def by_key(self, by: str, key: str) -> JobRow | None:
        """The job that `by` asked for with the idempotency key `key`."""
        return await self._one(select(*JOB_COLUMNS).where(JOBS.c.created_by == by, JOBS.c.key == key))

    async def _one(self, query: Select[tuple[object, ...]]) -> JobRow | None:
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return job_row(row) if row is not None else None

    async def inventory(self, job: int) -> Inventory:
        """The inventory of a job that exists."""
        async with self._database.read() as connection:
            text = (await connection.execute(select(JOBS.c.inventory).where(JOBS.c.id == job))).scalar_one()
        return msgspec.json.decode(text, type=Inventory)

    async def listing(self, *, limit: int, before: int | None = None, node: str | None = None) -> list[JobRow]:
        """Jobs, newest first."""
        query = select(*JOB_COLUMNS).order_by(JOBS.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(JOBS.c.id < before)
        if node is not None:
            query = query.where(JOBS.c.id.in_(select(HOSTS.c.job).where(HOSTS.c.node == node)))
        return await self._several(query)

    async def driven(self) -> list[Driven]:
        """Jobs that something more than their queues decides on, in the order in which they may take a lock."""
        open_ = JOBS.c.state.in_(("waiting", "queued", "running"))
        query = (
            select(JOBS.c.id, JOBS.c.lock, LOCKS.c.job.label("holder"))
            .outerjoin(LOCKS, LOCKS.c.name == JOBS.c.lock)
            .where(JOBS.c.driven, open_)
            .order_by(JOBS.c.priority.desc(), JOBS.c.id)
        )
        async with self._database.read() as connection:
            return [Driven(row.id, row.lock, row.holder) for row in await connection.execute(query)]

    async def unapproved(self) -> list[JobRow]:
        """Jobs that wait for somebody's word, the oldest first; at most a thousand."""
        query = select(*JOB_COLUMNS).where(JOBS.c.state == "waiting_approval").order_by(JOBS.c.id).limit(1000)
        return await self._several(query)

    async def orphans(self) -> list[tuple[int, int]]:
        """Jobs that go on while what they are a part of has ended, each with that."""
        parents = JOBS.alias()
        query = select(JOBS.c.id, JOBS.c.parent).join(parents, parents.c.id == JOBS.c.parent)
        async with self._database.read() as connection:
            found = await connection.execute(query.where(JOBS.c.state.not_in(ENDED), parents.c.state.in_(ENDED)))
            return [(row.id, row.parent) for row in found]

    async def children(self, parent: int) -> list[JobRow]:
        """The jobs that check a job's batches or roll it back."""
        return await self._several(select(*JOB_COLUMNS).where(JOBS.c.parent == parent).order_by(JOBS.c.id))

    async def _several(self, query: Select[tuple[object, ...]]) -> list[JobRow]:
        async with self._database.read() as connection:
            return [job_row(row) for row in await connection.execute(query)]

    async def batches(self, job: int) -> list[Batch]:
        """The batches of a job."""
        async with self._database.read() as connection:
            query = select(BATCHES).where(BATCHES.c.job == job).order_by(BATCHES.c.number)
            return [batch_row(row) for row in await connection.execute(query)]

    async def hosts(self, jobs: Iterable[int]) -> dict[int, list[HostRow]]:
        """The nodes of each of `jobs`, in the order of the inventory."""
        query = select(HOSTS).where(HOSTS.c.job.in_(list(jobs))).order_by(HOSTS.c.job, HOSTS.c.position)
        found: dict[int, list[HostRow]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(query):
                found.setdefault(row.job, []).append(host_row(row))
        return found

    async def host(self, job: int, node: str) -> HostRow | None:
        """A job on one node."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(HOSTS).where(HOSTS.c.job == job, HOSTS.c.node == node))).first()
        return host_row(row) if row is not None else None

    async def queue(self, node: str, *, held: bool = False) -> list[HostRow]:
        """What `node` has to do, in order: what it works on, then by priority; with `held` what may not run yet."""
        states = (*OPEN, "held") if held else OPEN
        query = _in_order(select(HOSTS).where(HOSTS.c.node == node, HOSTS.c.state.in_(states)))
        async with self._database.read() as connection:
            return [host_row(row) for row in await connection.execute(query)]

    async def heads(self, nodes: Sequence[str]) -> dict[str, HostRow]:
        """What each of `nodes` has to do first: the job it works on, then one whose plays span nodes and have begun.

        Its other nodes wait for that one. The one that began first on any node counts first, on every node: so no
        two jobs wait for each other.
        """
        mine = HOSTS.c.node.in_(nodes) & HOSTS.c.state.in_(OPEN)
        place = func.row_number().over(partition_by=HOSTS.c.node, order_by=_order()).label("place")
        ranked = select(HOSTS, place).where(mine).subquery()
        spanning = select(HOSTS).join(SPANS, SPANS.c.job == HOSTS.c.job).where(mine)
        begun = spanning.order_by(SPANS.c.begun, SPANS.c.job)
        async with self._database.read() as connection:
            rows = await connection.execute(select(ranked).where(ranked.c.place == 1))
            found = {row.node: host_row(row) for row in rows}
            spans = {row.node: host_row(row) for row in reversed((await connection.execute(begun)).all())}
        return found | {node: host for node, host in spans.items() if found[node].state not in _WORKING}

    async def working(self, nodes: Sequence[str]) -> dict[tuple[int, str], HostRow]:
        """What `nodes` work on."""
        query = select(HOSTS).where(HOSTS.c.node.in_(nodes), HOSTS.c.state.in_(_WORKING))
        async with self._database.read() as connection:
            return {(row.job, row.node): host_row(row) for row in await connection.execute(query)}

    async def queues(self) -> dict[str, list[HostRow]]:
        """The queue of every node that has one, in order."""
        found: dict[str, list[HostRow]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(_in_order(select(HOSTS).where(HOSTS.c.state.in_(OPEN)))):
                found.setdefault(row.node, []).append(host_row(row))
        return found

    async def lengths(self, *, held: bool = False) -> dict[str, int]:
        """How much is in each node's queue; with `held` also what may not run yet."""
        states = (*OPEN, "held") if held else OPEN
        query = select(HOSTS.c.node, func.count()).where(HOSTS.c.state.in_(states)).group_by(HOSTS.c.node)
        async with self._database.read() as connection:
            return {row[0]: row[1] for row in await connection.execute(query)}

    async def bundles(self) -> set[str]:
        """Every bundle that some job refers to."""
        async with self._database.read() as connection:
            return {row.bundle for row in await connection.execute(select(JOBS.c.bundle).distinct())}

    async def prune(self, *, days: float) -> int:
        """Delete jobs that ended more than `days` days ago, with all that belongs to them; how many."""
        limit = self._clock.time() - days * 86_400
        old = select(JOBS.c.id).where(JOBS.c.ended < limit, JOBS.c.state.in_(ENDED)).order_by(JOBS.c.id).limit(500)
        async with self._database.write() as connection:
            ids = [row.id for row in await connection.execute(old)]
            for column in ALL:
                await connection.execute(delete(column.table).where(column.in_(ids)))
        return len(ids)


def _in_order(query: Select[tuple[object, ...]]) -> Select[tuple[object, ...]]:
    return query.order_by(*_order())


def _order() -> tuple[ColumnElement[object], ...]:
    return case((HOSTS.c.state.in_(_WORKING), 0), else_=1), HOSTS.c.priority.desc(), HOSTS.c.job

"""Jobs: what was asked, its state on each node, and the events that came back.

A node's queue is the rows of `job_hosts` with its name that have not ended, by job id: there is no
second copy to keep in step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from llmagentos.api.jobs import HostState, Inventory, JobEvent, JobRecord, JobSpec, JobState, Stats
from llmagentos.core.clock import Clock
from llmagentos.storage.database import METADATA, Database

ENDED = ("succeeded", "failed", "cancelled")
PAGE_BYTES = 8 * 1024 * 1024
"""About as much as is read of a job's events at once."""
SLICE = 50
_OPEN = ("queued", "running", "cancelling")

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False),
    Column("bundle", String(64), nullable=False),
    Column("spec", Text, nullable=False),  # api.jobs.JobSpec as JSON
    Column("inventory", Text, nullable=False),  # api.jobs.Inventory as JSON
    Column("local", Boolean, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", Float, nullable=False, index=True),
    Column("created_by", String(300), nullable=False),
    Column("started", Float),
    Column("ended", Float, index=True),
    Column("exit_code", Integer),
    Column("last_event", Integer, nullable=False),
    sqlite_autoincrement=True,
)

HOSTS = Table(
    "job_hosts",
    METADATA,
    Column("job", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("node", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("next_seq", Integer, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("exit_code", Integer),
    Column("recap", Text),  # api.jobs.Stats as JSON
    Column("message", Text),
    Index(None, "node", "state", "job"),
)

EVENTS = Table(
    "job_events",
    METADATA,
    Column("job", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("node", String(64), nullable=False),
    Column("event", Text, nullable=False),  # api.jobs.JobEvent as JSON
)


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as stored. Times are seconds since the epoch."""

    id: int
    name: str
    spec: JobSpec
    local: bool
    state: JobState
    created: float
    created_by: str
    started: float | None
    ended: float | None
    exit_code: int | None
    last_event: int


@dataclass(frozen=True, slots=True)
class HostRow:
    """A job on one node, as stored."""

    job: int
    node: str
    state: HostState
    fence: int
    next_seq: int
    started: float | None
    ended: float | None
    exit_code: int | None
    recap: Stats | None
    message: str | None


class JobRecords:
    """Queries over the jobs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self, spec: JobSpec, nodes: Sequence[str], inventory: Inventory, *, local: bool, by: str
    ) -> JobRow:
        """A new job, queued on `nodes`."""
        now = self._clock.time()
        async with self._database.write() as connection:
            done = await connection.execute(
                insert(JOBS).values(
                    name=spec.playbook,
                    bundle=spec.bundle,
                    spec=_json(spec),
                    inventory=_json(inventory),
                    local=local,
                    state="queued",
                    created=now,
                    created_by=by,
                    last_event=0,
                )
            )
            key = done.inserted_primary_key
            assert key is not None
            job = int(key[0])
            await connection.execute(
                insert(HOSTS),
                [
                    {"job": job, "node": node, "position": i, "state": "queued", "fence": 0, "next_seq": 1}
                    for i, node in enumerate(nodes)
                ],
            )
        return JobRow(job, spec.playbook, spec, local, "queued", now, by, None, None, None, 0)

    async def find(self, job: int) -> JobRow | None:
        """One job."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(JOBS).where(JOBS.c.id == job))).first()
        return _job(row) if row is not None else None

    async def inventory(self, job: int) -> Inventory:
        """The inventory of a job that exists."""
        async with self._database.read() as connection:
            text = (await connection.execute(select(JOBS.c.inventory).where(JOBS.c.id == job))).scalar_one()
        return msgspec.json.decode(text, type=Inventory)

    async def listing(self, *, limit: int, before: int | None = None, node: str | None = None) -> list[JobRow]:
        """Jobs, newest first."""
        query = select(JOBS).order_by(JOBS.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(JOBS.c.id < before)
        if node is not None:
            query = query.where(JOBS.c.id.in_(select(HOSTS.c.job).where(HOSTS.c.node == node)))
        async with self._database.read() as connection:
            return [_job(row) for row in await connection.execute(query)]

    async def hosts(self, jobs: Iterable[int]) -> dict[int, list[HostRow]]:
        """The nodes of each of `jobs`, in the order of the inventory."""
        query = select(HOSTS).where(HOSTS.c.job.in_(list(jobs))).order_by(HOSTS.c.job, HOSTS.c.position)
        found: dict[int, list[HostRow]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(query):
                found.setdefault(row.job, []).append(_host(row))
        return found

    async def queue(self, node: str) -> list[HostRow]:
        """What `node` has to do, in order."""
        query = select(HOSTS).where(HOSTS.c.node == node, HOSTS.c.state.in_(_OPEN)).order_by(HOSTS.c.job)
        async with self._database.read() as connection:
            return [_host(row) for row in await connection.execute(query)]

    async def queues(self) -> dict[str, list[HostRow]]:
        """The queue of every node that has one."""
        query = select(HOSTS).where(HOSTS.c.state.in_(_OPEN)).order_by(HOSTS.c.job)
        found: dict[str, list[HostRow]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(query):
                found.setdefault(row.node, []).append(_host(row))
        return found

    async def highest_fence(self) -> int:
        """The greatest fencing token ever given."""
        async with self._database.read() as connection:
            return (await connection.execute(select(func.max(HOSTS.c.fence)))).scalar() or 0

    async def change(
        self,
        job: int,
        decide: Callable[[list[HostRow]], dict[str, dict[str, Any]]],
        conclude: Callable[[list[HostRow]], tuple[JobState, int | None]],
    ) -> tuple[JobRow, list[HostRow], bool]:
        """Change a job's hosts in one transaction: `decide` names new values by node, `conclude` the job's own.

        Returns the job, its hosts, and whether this was what ended it. Raises what `decide` raises, and
        then nothing has changed.
        """
        async with self._database.write() as connection:
            row = _job((await connection.execute(select(JOBS).where(JOBS.c.id == job).with_for_update())).one())
            hosts = await self._hosts_of(connection, job)
            changes = decide(hosts)
            for node, values in changes.items():
                mine = (HOSTS.c.job == job) & (HOSTS.c.node == node)
                await connection.execute(update(HOSTS).where(mine).values(**values))
            if changes:
                hosts = await self._hosts_of(connection, job)
            values = self._conclusion(row, *conclude(hosts))
            if values:
                await connection.execute(update(JOBS).where(JOBS.c.id == job).values(**values))
                row = _job((await connection.execute(select(JOBS).where(JOBS.c.id == job))).one())
        return row, hosts, "ended" in values

    def _conclusion(self, before: JobRow, state: JobState, exit_code: int | None) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if state != before.state:
            values["state"] = state
        if state != "queued" and before.started is None:
            values["started"] = self._clock.time()
        if state in ENDED and before.ended is None:
            values |= {"ended": self._clock.time(), "exit_code": exit_code}
        return values

    async def _hosts_of(self, connection: AsyncConnection, job: int) -> list[HostRow]:
        query = select(HOSTS).where(HOSTS.c.job == job).order_by(HOSTS.c.position)
        return [_host(row) for row in await connection.execute(query)]

    async def append(
        self, job: int, node: str, decide: Callable[[HostRow], tuple[int, Sequence[JobEvent]]]
    ) -> tuple[int, list[JobRecord]]:
        """Append events of `node`; `decide` names the next expected number and what to keep of them.

        Returns the node's next number and what was kept, as readers get it.
        """
        mine = (HOSTS.c.job == job) & (HOSTS.c.node == node)
        async with self._database.write() as connection:
            locked = select(JOBS.c.last_event).where(JOBS.c.id == job).with_for_update()
            last = int((await connection.execute(locked)).scalar_one())
            host = _host((await connection.execute(select(HOSTS).where(mine))).one())
            next_seq, kept = decide(host)
            records = [JobRecord(last + i, node, event) for i, event in enumerate(kept, 1)]
            if next_seq != host.next_seq:
                await connection.execute(update(HOSTS).where(mine).values(next_seq=next_seq))
            if records:
                rows = [{"job": job, "id": r.id, "node": node, "event": _json(r.event)} for r in records]
                await connection.execute(insert(EVENTS), rows)
                await connection.execute(update(JOBS).where(JOBS.c.id == job).values(last_event=last + len(records)))
        return next_seq, records

    async def events(self, job: int, *, after: int, limit: int) -> list[JobRecord]:
        """Events after the id `after`: at most `limit`, and fewer when they are large."""
        return await self._page(job, EVENTS.c.id > after, EVENTS.c.id.asc(), limit)

    async def last_events(self, job: int, *, limit: int) -> list[JobRecord]:
        """The newest events, oldest first: at most `limit`, and fewer when they are large."""
        return (await self._page(job, EVENTS.c.id > 0, EVENTS.c.id.desc(), limit))[::-1]

    async def _page(
        self, job: int, wanted: ColumnElement[bool], order: ColumnElement[int], limit: int
    ) -> list[JobRecord]:
        found: list[JobRecord] = []
        size = 0
        query = select(EVENTS).where(EVENTS.c.job == job, wanted).order_by(order)
        async with self._database.read() as connection:
            while len(found) < limit and size < PAGE_BYTES:
                slice_ = min(SLICE, limit - len(found))
                rows = (await connection.execute(query.offset(len(found)).limit(slice_))).all()
                size += sum(len(row.event) for row in rows)
                found += [JobRecord(row.id, row.node, msgspec.json.decode(row.event, type=JobEvent)) for row in rows]
                if len(rows) < slice_:
                    break
        return found

    async def bundles(self) -> set[str]:
        """Every bundle that some job refers to."""
        async with self._database.read() as connection:
            return {row.bundle for row in await connection.execute(select(JOBS.c.bundle).distinct())}

    async def prune(self, *, days: float) -> int:
        """Delete jobs that ended more than `days` days ago, with their events; how many."""
        limit = self._clock.time() - days * 86_400
        old = select(JOBS.c.id).where(JOBS.c.ended < limit).order_by(JOBS.c.id).limit(500)
        async with self._database.write() as connection:
            ids = [row.id for row in await connection.execute(old)]
            for table in (EVENTS.c.job, HOSTS.c.job, JOBS.c.id):
                await connection.execute(delete(table.table).where(table.in_(ids)))
        return len(ids)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _job(row: Row[Any]) -> JobRow:
    return JobRow(
        row.id,
        row.name,
        msgspec.json.decode(row.spec, type=JobSpec),
        row.local,
        row.state,
        row.created,
        row.created_by,
        row.started,
        row.ended,
        row.exit_code,
        row.last_event,
    )


def _host(row: Row[Any]) -> HostRow:
    recap = msgspec.json.decode(row.recap, type=Stats) if row.recap else None
    return HostRow(
        row.job,
        row.node,
        row.state,
        row.fence,
        row.next_seq,
        row.started,
        row.ended,
        row.exit_code,
        recap,
        row.message,
    )

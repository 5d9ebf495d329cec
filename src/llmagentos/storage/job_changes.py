"""Changes of a job: decided on what is stored, made in one transaction, each state change with who and when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import RowMapping, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from llmagentos.api.job_control import Batch, JobChange
from llmagentos.api.jobs import HostState, JobRecord, JobState, LogLine
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict
from llmagentos.storage.database import Database
from llmagentos.storage.job_tables import (
    BATCHES,
    ENDED,
    EVENTS,
    HISTORY,
    HOSTS,
    JOB_COLUMNS,
    JOBS,
    LOCKS,
    HostRow,
    JobRow,
    batch_row,
    host_row,
    job_row,
    to_json,
)

MASK = "********"
_NODES = 500


@dataclass(frozen=True, slots=True)
class Seen:
    """A job as it stands: what a change is decided on. `holder` is the job that has its lock."""

    row: JobRow
    hosts: list[HostRow]
    batches: list[Batch]
    holder: int | None = None


@dataclass(slots=True)
class Changes:
    """New values by node, of the job itself and by batch; `lock`: take its lock; `lines` for its readers."""

    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    batches: dict[int, dict[str, Any]] = field(default_factory=dict)
    lock: bool = False
    lines: list[tuple[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.hosts or self.job or self.batches or self.lock)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What the nodes and batches make of the whole."""

    state: JobState
    exit_code: int | None = None
    message: str | None = None


Conclude = Callable[[JobRow, Collection[HostState], Sequence[Batch]], Conclusion]


@dataclass(frozen=True, slots=True)
class Changed:
    """A job after a change, what was told of it, and whether that was what ended it."""

    seen: Seen
    ended: bool
    records: list[JobRecord]


class LockTaken(Conflict):
    """Another job was faster."""

    code = "lock_taken"


class JobChanges:
    """The only place that changes jobs once they are made."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def change(self, job: int, by: str, decide: Callable[[Seen], Changes], conclude: Conclude) -> Changed:
        """What `decide` wants, and what `conclude` makes of it, with a line of history for each state change.

        Raises what `decide` raises, and `LockTaken`; then nothing has changed.
        """
        async with self._database.write() as connection:
            before = await self._seen(connection, job, lock=True)
            wanted = decide(before)
            records = await self._make(connection, before, wanted)
            after = await self._seen(connection, job) if wanted else before
            begun = min((host.started for host in after.hosts if host.started is not None), default=None)
            found = conclude(after.row, [host.state for host in after.hosts], after.batches)
            values = concluded(after.row, begun, found, self._clock.time())
            if values:
                await connection.execute(update(JOBS).where(JOBS.c.id == job).values(**values))
                after = Seen(await self._row(connection, job), after.hosts, after.batches, after.holder)
            await self._note(connection, before, after, by)
            if "ended" in values:
                await connection.execute(delete(LOCKS).where(LOCKS.c.job == job))
        return Changed(after, "ended" in values, records)

    async def seen(self, job: int) -> Seen:
        """A job as it stands. It has to exist."""
        async with self._database.read() as connection:
            return await self._seen(connection, job)

    async def _row(self, connection: AsyncConnection, job: int, *, lock: bool = False) -> JobRow:
        query = select(*JOB_COLUMNS).where(JOBS.c.id == job)
        return job_row((await connection.execute(query.with_for_update() if lock else query)).one())

    async def _seen(self, connection: AsyncConnection, job: int, *, lock: bool = False) -> Seen:
        row = await self._row(connection, job, lock=lock)
        query = select(HOSTS).where(HOSTS.c.job == job).order_by(HOSTS.c.position)
        hosts = [host_row(each) for each in await connection.execute(query)]
        if not row.driven:
            return Seen(row, hosts, [])
        listed = select(BATCHES).where(BATCHES.c.job == job).order_by(BATCHES.c.number)
        batches = [batch_row(each) for each in await connection.execute(listed)]
        holder = None
        if row.spec.lock is not None:
            holder = (
                await connection.execute(select(LOCKS.c.job).where(LOCKS.c.name == row.spec.lock))
            ).scalar_one_or_none()
        return Seen(row, hosts, batches, holder)

    async def _make(self, connection: AsyncConnection, before: Seen, wanted: Changes) -> list[JobRecord]:
        job = before.row.id
        if wanted.lock:
            await self._take_lock(connection, before.row)
        for values, nodes in _alike(wanted.hosts):
            for begin in range(0, len(nodes), _NODES):
                mine = (HOSTS.c.job == job) & HOSTS.c.node.in_(nodes[begin : begin + _NODES])
                await connection.execute(update(HOSTS).where(mine).values(**values))
        for number, changed in wanted.batches.items():
            mine = (BATCHES.c.job == job) & (BATCHES.c.number == number)
            now = {"at": self._clock.time()} if "state" in changed else {}
            await connection.execute(update(BATCHES).where(mine).values(**changed, **now))
        values = dict(wanted.job)
        records = [
            JobRecord(before.row.last_event + i, node, LogLine(seq=1, at=self._clock.time(), text=text))
            for i, (node, text) in enumerate(wanted.lines, 1)
        ]
        if records:
            rows = [{"job": job, "id": r.id, "node": r.node, "event": to_json(r.event)} for r in records]
            await connection.execute(insert(EVENTS), rows)
            values["last_event"] = records[-1].id
        if values:
            await connection.execute(update(JOBS).where(JOBS.c.id == job).values(**values))
        return records

    async def _take_lock(self, connection: AsyncConnection, row: JobRow) -> None:
        made = (sqlite.insert if self._database.is_sqlite else postgresql.insert)(LOCKS)
        values = {"name": row.spec.lock, "job": row.id, "at": self._clock.time()}
        done = await connection.execute(made.values(**values).on_conflict_do_nothing())
        if done.rowcount != 1:
            raise LockTaken(f"the lock {row.spec.lock!r} was taken by another job")

    async def _note(self, connection: AsyncConnection, before: Seen, after: Seen, by: str) -> None:
        now = self._clock.time()
        lines = [
            {"batch": None, "node": None, "attempt": 1, "message": None, "before": None} | line
            for line in _differences(before, after)
        ]
        if not lines:
            return
        first = before.row.last_change + 1
        common = {"job": before.row.id, "at": now, "by": by[:300]}
        await connection.execute(
            insert(HISTORY), [{**line, **common, "id": number} for number, line in enumerate(lines, first)]
        )
        last = {"last_change": before.row.last_change + len(lines)}
        await connection.execute(update(JOBS).where(JOBS.c.id == before.row.id).values(**last))

    async def history(self, job: int, *, after: int, limit: int) -> list[JobChange]:
        """Changes after the one with id `after`, oldest first."""
        query = select(HISTORY).where(HISTORY.c.job == job, HISTORY.c.id > after).order_by(HISTORY.c.id).limit(limit)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [_change(row) for row in rows]

    async def last(self, job: int, *, limit: int, node: str | None, hosts: bool) -> list[JobChange]:
        """The newest changes, newest first: of `node`, of all nodes with `hosts`, and of the job as a whole."""
        wanted = HISTORY.c.job == job
        if node is not None:
            wanted &= (HISTORY.c.node == node) | (HISTORY.c.what != "host")
        elif not hosts:
            wanted &= HISTORY.c.what != "host"
        query = select(HISTORY).where(wanted).order_by(HISTORY.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [_change(row) for row in rows]


def _change(row: RowMapping) -> JobChange:
    return JobChange(**{name: value for name, value in row.items() if name != "job"})


def concluded(row: JobRow, begun: float | None, found: Conclusion, now: float) -> dict[str, Any]:
    """New values of a job whose nodes came to `found`, and the first of which began at `begun`."""
    values: dict[str, Any] = {}
    if found.state != row.state:
        values["state"] = found.state
    if row.started is None and begun is not None:
        values["started"] = begun
    if found.state in ENDED and row.ended is None:
        values |= {"ended": now, "exit_code": found.exit_code, "waiting": None}
        values["started"] = row.started or values.get("started") or now
        if found.message is not None:
            values["message"] = found.message
    return values


def masked(spec: Any) -> Any:
    """A `JobSpec` that tells no secret."""
    if not spec.secrets:
        return spec
    hidden = {name: MASK if name in spec.secrets else value for name, value in spec.extra_vars.items()}
    return msgspec.structs.replace(spec, extra_vars=hidden)


def _alike(hosts: Mapping[str, dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Sequence[str]]]:
    """Nodes with the same new values together: a batch of a thousand is one statement, not a thousand."""
    groups: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for node, values in hosts.items():
        groups.setdefault(tuple(sorted(values.items())), []).append(node)
    for key, nodes in groups.items():
        yield dict(key), nodes


def _differences(before: Seen, after: Seen) -> Iterator[dict[str, Any]]:
    old, new = before.row, after.row
    asked = old.approval.state if old.approval is not None else None
    if new.approval is not None and new.approval.state != asked:
        yield {"what": "approval", "before": asked, "after": new.approval.state, "message": new.approval.reason}
    for was, now in zip(before.batches, after.batches, strict=True):
        if was.state != now.state:
            changed = {"what": "batch", "batch": now.number, "before": was.state, "after": now.state}
            yield changed | {"message": now.message}
    for host, became in zip(before.hosts, after.hosts, strict=True):
        if (host.state, host.attempt) != (became.state, became.attempt):
            line = {"what": "host", "node": became.node, "before": host.state, "after": became.state}
            yield line | {"attempt": became.attempt, "message": became.message, "batch": became.batch}
    if old.state != new.state:
        yield {"what": "job", "before": old.state, "after": new.state, "message": new.message}
    if new.waiting is not None and new.waiting != old.waiting:
        told = f"{new.waiting.reason} {new.waiting.detail}".strip()
        yield {"what": "job", "before": new.state, "after": new.state, "message": f"waits: {told}"}

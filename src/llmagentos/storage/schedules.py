"""Schedules, and each time that one was due: claimed by a row, so that of several servers one makes the job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text, delete, insert, select
from sqlalchemy import update as update_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Row

from llmagentos.api.schedules import ScheduleSpec
from llmagentos.core.clock import Clock
from llmagentos.storage.database import METADATA, Database

SCHEDULES = Table(
    "schedules",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("spec", Text, nullable=False),  # api.schedules.ScheduleSpec as JSON
    Column("paused", Boolean, nullable=False),
    Column("since", Float, nullable=False),  # times up to this one are done with
    Column("created", Float, nullable=False),
    Column("created_by", String(300), nullable=False),
    Column("changed_by", String(300), nullable=False),
)

FIRES = Table(
    "schedule_fires",
    METADATA,
    Column("schedule", String(128), primary_key=True),
    Column("due", Float, primary_key=True),
    Column("at", Float, nullable=False),
    Column("job", BigInteger().with_variant(Integer, "sqlite")),
    Column("error", Text),
    Column("spec", Text),  # what to run, as it was when it was due
    Column("open", Boolean, nullable=False),  # no job was made yet, and none was refused
    Index(None, "open"),
)


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule as stored. Times are seconds since the epoch."""

    name: str
    spec: ScheduleSpec
    paused: bool
    since: float
    created: float
    created_by: str
    changed_by: str


@dataclass(frozen=True, slots=True)
class FireRow:
    """A time that a schedule was due. `open`: nothing has come of it yet."""

    schedule: str
    due: float
    at: float
    job: int | None
    error: str | None
    spec: ScheduleSpec | None
    open: bool


class ScheduleRecords:
    """Queries over the schedules."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def all(self) -> list[ScheduleRow]:
        """All schedules by name."""
        async with self._database.read() as connection:
            return [_schedule(row) for row in await connection.execute(select(SCHEDULES).order_by(SCHEDULES.c.name))]

    async def find(self, name: str) -> ScheduleRow | None:
        """One schedule."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(SCHEDULES).where(SCHEDULES.c.name == name))).first()
        return _schedule(row) if row is not None else None

    async def add(self, name: str, spec: ScheduleSpec, by: str) -> bool:
        """A new schedule; False when the name is taken."""
        now = self._clock.time()
        values = {"name": name, "spec": _json(spec), "paused": False, "since": now, "created": now}
        values |= {"created_by": by, "changed_by": by}
        made = (sqlite.insert if self._database.is_sqlite else postgresql.insert)(SCHEDULES)
        async with self._database.write() as connection:
            done = await connection.execute(made.values(**values).on_conflict_do_nothing())
        return bool(done.rowcount == 1)

    async def pause(self, name: str, by: str, *, paused: bool) -> bool:
        """Pause a schedule or resume it: what was due meanwhile is done with. False when there is none."""
        values: dict[str, Any] = {"paused": paused, "changed_by": by}
        if not paused:
            values["since"] = self._clock.time()
        mine = (SCHEDULES.c.name == name) & (SCHEDULES.c.paused != paused)
        async with self._database.write() as connection:
            await connection.execute(update_(SCHEDULES).where(mine).values(**values))
            found = (await connection.execute(select(SCHEDULES.c.name).where(SCHEDULES.c.name == name))).first()
        return found is not None

    async def change(self, name: str, spec: ScheduleSpec, by: str) -> bool:
        """Another specification from now on: what was due by the old one is done with. False when there is none."""
        values = {"spec": _json(spec), "changed_by": by, "since": self._clock.time()}
        async with self._database.write() as connection:
            done = await connection.execute(update_(SCHEDULES).where(SCHEDULES.c.name == name).values(**values))
        return bool(done.rowcount == 1)

    async def remove(self, name: str) -> bool:
        """Delete a schedule with its history; False when there is none."""
        async with self._database.write() as connection:
            await connection.execute(delete(FIRES).where(FIRES.c.schedule == name))
            done = await connection.execute(delete(SCHEDULES).where(SCHEDULES.c.name == name))
        return bool(done.rowcount == 1)

    async def claim(self, row: ScheduleRow, due: float, *, done: float) -> bool:
        """Take the time `due` of a schedule; those up to `done` are done with.

        False when somebody else has it, or has gone further: a server that looked long ago fires no older time, and
        none of a schedule that was deleted and made anew meanwhile.
        """
        values = {"schedule": row.name, "due": due, "at": self._clock.time(), "spec": _json(row.spec), "open": True}
        made = (sqlite.insert if self._database.is_sqlite else postgresql.insert)(FIRES)
        async with self._database.write() as connection:
            mine = (SCHEDULES.c.name == row.name) & (SCHEDULES.c.created == row.created)
            current = select(SCHEDULES.c.paused, SCHEDULES.c.since).where(mine).with_for_update()
            stands = (await connection.execute(current)).first()
            if stands is None or stands.paused or stands.since >= due:
                return False
            claimed = await connection.execute(made.values(**values).on_conflict_do_nothing())
            later = (SCHEDULES.c.name == row.name) & (SCHEDULES.c.since < done)
            await connection.execute(update_(SCHEDULES).where(later).values(since=done))
        return bool(claimed.rowcount == 1)

    async def skip(self, name: str, done: float) -> None:
        """The times up to `done` are done with."""
        later = (SCHEDULES.c.name == name) & (SCHEDULES.c.since < done)
        async with self._database.write() as connection:
            await connection.execute(update_(SCHEDULES).where(later).values(since=done))

    async def begin(self, row: ScheduleRow) -> FireRow:
        """A time out of turn: somebody wants it to run now."""
        now = self._clock.time()
        values = {"schedule": row.name, "due": now, "at": now, "spec": _json(row.spec), "open": True}
        async with self._database.write() as connection:
            await connection.execute(insert(FIRES).values(**values))
        return FireRow(row.name, now, now, None, None, row.spec, True)

    async def settle(self, fire: FireRow, *, job: int | None = None, error: str | None = None) -> None:
        """What came of a time that was taken."""
        mine = (FIRES.c.schedule == fire.schedule) & (FIRES.c.due == fire.due)
        async with self._database.write() as connection:
            values = {"job": job, "error": error, "open": False, "spec": None}
            await connection.execute(update_(FIRES).where(mine).values(**values))

    async def unsettled(self, *, limit: int) -> list[FireRow]:
        """Times that were taken and of which nothing has come yet, the oldest first."""
        query = select(FIRES).where(FIRES.c.open).order_by(FIRES.c.at).limit(limit)
        async with self._database.read() as connection:
            return [_fire(row) for row in await connection.execute(query)]

    async def fires(self, name: str, *, limit: int) -> list[FireRow]:
        """The last times of a schedule, the newest first."""
        query = select(FIRES).where(FIRES.c.schedule == name).order_by(FIRES.c.due.desc()).limit(limit)
        async with self._database.read() as connection:
            return [_fire(row) for row in await connection.execute(query)]

    async def bundles(self) -> set[str]:
        """Every bundle that a schedule, or a time that was taken, refers to."""
        query = select(FIRES.c.spec).where(FIRES.c.open, FIRES.c.spec.is_not(None)).distinct()
        specs = [row.spec for row in await self.all()]
        async with self._database.read() as connection:
            open_ = (await connection.execute(query)).scalars().all()
        specs += [msgspec.json.decode(text, type=ScheduleSpec) for text in open_]
        return {spec.job.bundle for spec in specs if spec.job is not None}

    async def prune(self, *, days: float) -> int:
        """Delete times that are more than `days` days ago; how many."""
        old = (FIRES.c.at < self._clock.time() - days * 86_400) & FIRES.c.open.is_(False)
        async with self._database.write() as connection:
            return (await connection.execute(delete(FIRES).where(old))).rowcount


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _schedule(row: Row[Any]) -> ScheduleRow:
    spec = msgspec.json.decode(row.spec, type=ScheduleSpec)
    return ScheduleRow(row.name, spec, row.paused, row.since, row.created, row.created_by, row.changed_by)


def _fire(row: Row[Any]) -> FireRow:
    spec = msgspec.json.decode(row.spec, type=ScheduleSpec) if row.spec else None
    return FireRow(row.schedule, row.due, row.at, row.job, row.error, spec, row.open)

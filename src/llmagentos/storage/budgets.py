"""Budgets: limits set by people, what every node has spent, and the calls that hold or have taken something.

What a node has spent is written as a whole and calls by their id, so a batch that comes twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Column, Float, Insert, String, Table, Text, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from llmagentos.api.budgets import BudgetSpec
from llmagentos.api.llm import CallInfo
from llmagentos.core.clock import Clock
from llmagentos.storage.calls import log_calls
from llmagentos.storage.database import METADATA, Database

BUDGETS = Table(
    "budgets",
    METADATA,
    Column("path", String(1000), primary_key=True),
    Column("spec", Text, nullable=False),
    Column("updated", Float, nullable=False),
    Column("updated_by", String(300), nullable=False),
)

SPENDING = Table(
    "budget_spending",
    METADATA,
    Column("path", String(1000), primary_key=True),
    Column("run", String(64), index=True),  # the run whose own node it is
    Column("windows", Text, nullable=False),  # by period: its end, what was used, which thresholds were told
    Column("updated", Float, nullable=False, index=True),
)

CALLS = Table(
    "budget_calls",
    METADATA,
    Column("id", String(200), primary_key=True),
    Column("path", String(1000), nullable=False),
    Column("run", String(64), index=True),
    Column("step", String(80)),  # which call of the run: one made again after a crash is the same
    Column("amounts", Text, nullable=False),  # held while open, taken once settled
    Column("state", String(8), nullable=False),  # open, settled, failed
    Column("at", Float, nullable=False),
    Column("about", Text),  # of an open call of a model: what is listed of it when nobody lives to see its end
)


@dataclass(frozen=True, slots=True)
class BudgetRecord:
    """What a person set."""

    path: str
    spec: BudgetSpec
    updated: float
    updated_by: str


@dataclass(frozen=True, slots=True)
class SpendingRecord:
    """What a node has spent; `windows` as the kernel keeps them."""

    path: str
    run: str | None
    windows: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call that holds (`open`) or has taken (`settled`, `failed`) `amounts`."""

    id: str
    path: str
    run: str | None
    step: str | None
    amounts: Mapping[str, int]
    state: str
    at: float
    about: CallInfo | None = None


@dataclass(slots=True)
class Changes:
    """The state after a number of changes. None stands for a row that is gone; `closed` runs leave no row at all."""

    calls: dict[str, CallRecord | None] = field(default_factory=dict)
    spending: dict[str, SpendingRecord | None] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    logged: list[CallInfo] = field(default_factory=list)
    """Calls that ended, for the list of all calls: what was counted for them is in `spending`."""

    def __bool__(self) -> bool:
        return bool(self.calls or self.spending or self.closed or self.logged)

    def before(self, later: Changes) -> Changes:
        """Both, as if made one after the other."""
        return Changes(
            self.calls | later.calls,
            self.spending | later.spending,
            self.closed | later.closed,
            self.logged + later.logged,
        )


class BudgetRecords:
    """Queries over budgets."""

    def __init__(self, database: Database, clock: Clock, *, idle_days: float = 400.0) -> None:
        self._database = database
        self._clock = clock
        self._idle_days = idle_days
        self._upserts = {table: _upsert(table, sqlite_=database.is_sqlite) for table in (BUDGETS, SPENDING, CALLS)}

    async def put(self, path: str, spec: BudgetSpec, *, by: str) -> BudgetRecord:
        """Set what stands at `path`."""
        record = BudgetRecord(path, spec, self._clock.time(), by[:300])
        row = {"path": path, "spec": _json(spec), "updated": record.updated, "updated_by": record.updated_by}
        async with self._database.write() as connection:
            await _put(connection, self._upserts[BUDGETS], [row])
        return record

    async def delete(self, path: str) -> bool:
        """Forget what stands at `path`; whether something did."""
        async with self._database.write() as connection:
            done = await connection.execute(delete(BUDGETS).where(BUDGETS.c.path == path))
        return done.rowcount > 0

    async def all(self) -> list[BudgetRecord]:
        """Everything that people set, by path."""
        async with self._database.read() as connection:
            rows = (await connection.execute(select(BUDGETS).order_by(BUDGETS.c.path))).all()
        return [
            BudgetRecord(row.path, msgspec.json.decode(row.spec, type=BudgetSpec), row.updated, row.updated_by)
            for row in rows
        ]

    async def spending(self) -> list[SpendingRecord]:
        """What every node has spent."""
        async with self._database.read() as connection:
            rows = (await connection.execute(select(SPENDING).order_by(SPENDING.c.path))).all()
        return [SpendingRecord(row.path, row.run, msgspec.json.decode(row.windows)) for row in rows]

    async def calls(self) -> list[CallRecord]:
        """Every call that is open, or was settled for a run that has not ended, oldest first."""
        async with self._database.read() as connection:
            rows = (await connection.execute(select(CALLS).order_by(CALLS.c.at, CALLS.c.id))).all()
        return [
            CallRecord(
                row.id,
                row.path,
                row.run,
                row.step,
                msgspec.json.decode(row.amounts),
                row.state,
                row.at,
                None if row.about is None else msgspec.json.decode(row.about, type=CallInfo),
            )
            for row in rows
        ]

    async def store(self, changes: Changes) -> None:
        """Put `changes` in force, all or none."""
        now = self._clock.time()
        calls = [_call(record) for record in changes.calls.values() if record is not None]
        spending = [_spending(record, now) for record in changes.spending.values() if record is not None]
        async with self._database.write() as connection:
            await _put(connection, self._upserts[CALLS], calls)
            await _put(connection, self._upserts[SPENDING], spending)
            await log_calls(connection, changes.logged)
            if gone := [id_ for id_, record in changes.calls.items() if record is None]:
                await connection.execute(delete(CALLS).where(CALLS.c.id.in_(gone)))
            if empty := [path for path, record in changes.spending.items() if record is None]:
                await connection.execute(delete(SPENDING).where(SPENDING.c.path.in_(empty)))
            if changes.closed:
                await connection.execute(delete(CALLS).where(CALLS.c.run.in_(changes.closed)))
                await connection.execute(delete(SPENDING).where(SPENDING.c.run.in_(changes.closed)))

    async def idle(self) -> list[str]:
        """Nodes that have spent nothing for longer than the retention."""
        limit = self._clock.time() - self._idle_days * 86_400
        async with self._database.read() as connection:
            query = select(SPENDING.c.path).where(SPENDING.c.updated < limit).order_by(SPENDING.c.path.desc())
            return list((await connection.execute(query)).scalars())


async def _put(connection: AsyncConnection, upsert: Insert, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        await connection.execute(upsert, rows)


def _upsert(table: Table, *, sqlite_: bool) -> Insert:
    """Made once: compiling it anew takes longer than the statement itself."""
    insert = (sqlite.insert if sqlite_ else postgresql.insert)(table)
    key = next(iter(table.primary_key.columns)).name
    changed = {column.name: insert.excluded[column.name] for column in table.columns if column.name != key}
    return insert.on_conflict_do_update(index_elements=[key], set_=changed)


def _call(record: CallRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "path": record.path,
        "run": record.run,
        "step": record.step,
        "amounts": _json(record.amounts),
        "state": record.state,
        "at": record.at,
        "about": None if record.about is None else _json(record.about),
    }


def _spending(record: SpendingRecord, now: float) -> dict[str, Any]:
    return {"path": record.path, "run": record.run, "windows": _json(record.windows), "updated": now}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()

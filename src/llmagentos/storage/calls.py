"""Calls to models as they were metered: one row each, kept for `retention.calls_days`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Float, Integer, String, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from llmagentos.api.llm import CallInfo
from llmagentos.core.clock import Clock
from llmagentos.storage.database import METADATA, Database

LLM_CALLS = Table(
    "llm_calls",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("at", Float, nullable=False, index=True),
    Column("model", String(64), nullable=False),
    Column("engine", String(32), nullable=False),
    Column("operation", String(16), nullable=False),  # OpenTelemetry's gen_ai.operation.name
    Column("caller", String(300), nullable=False),
    Column("run_id", String(64), index=True),
    Column("status", String(16), nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("queue_s", Float, nullable=False),
    Column("ttft_s", Float),
    Column("duration_s", Float, nullable=False),
    Column("error", String(500)),
    Column("budget", String(1000)),
    Column("charged", BigInteger, nullable=False),
    Column("money", BigInteger, nullable=False),
)


_INSERTS = {
    "sqlite": sqlite.insert(LLM_CALLS).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(LLM_CALLS).on_conflict_do_nothing(),
}


class CallRecords:
    """Queries over the calls."""

    def __init__(self, database: Database, clock: Clock, *, days: float) -> None:
        self._database = database
        self._clock = clock
        self._days = days

    async def add(self, calls: Sequence[CallInfo]) -> None:
        """Store calls that have ended. What is stored already stays as it is: a batch may come twice."""
        async with self._database.write() as connection:
            await log_calls(connection, calls)

    async def newest(self, limit: int, *, run_id: str | None = None) -> list[CallInfo]:
        """The last `limit` calls (of a run), newest first."""
        query = select(LLM_CALLS).order_by(LLM_CALLS.c.at.desc(), LLM_CALLS.c.id).limit(limit)
        if run_id is not None:
            query = query.where(LLM_CALLS.c.run_id == run_id)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [CallInfo(**row) for row in rows]

    async def prune(self) -> int:
        """Delete what is older than the retention; how many."""
        limit = self._clock.time() - self._days * 86_400
        async with self._database.write() as connection:
            done = await connection.execute(delete(LLM_CALLS).where(LLM_CALLS.c.at < limit))
        return done.rowcount


async def log_calls(connection: AsyncConnection, calls: Sequence[CallInfo]) -> None:
    """Store calls that have ended; one that is stored already stays as it is."""
    if calls:
        await connection.execute(_INSERTS[connection.dialect.name], [_row(call) for call in calls])


def _row(call: CallInfo) -> dict[str, Any]:
    # Cut to the columns' widths, and without NUL, which PostgreSQL's text cannot hold.
    cut = {"model": 64, "engine": 32, "caller": 300, "run_id": 64, "error": 500, "budget": 1000}
    row = msgspec.structs.asdict(call)
    return row | {name: row[name].replace("\0", "")[:width] for name, width in cut.items() if row[name] is not None}

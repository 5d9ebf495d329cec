"""Who changed what: one row for each request of a person that was not only a look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Float, Integer, String, Table, delete, func, insert, select

from llmagentos.core.clock import Clock
from llmagentos.storage.database import METADATA, Database
from llmagentos.storage.gathering import Gathered

AUDIT = Table(
    "audit",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False, index=True),
    Column("identity", String(300), nullable=False),
    Column("action", String(200), nullable=False),  # method and route template
    Column("target", String(500), nullable=False),  # the path itself
    Column("status", Integer, nullable=False),
)


class AuditRecords:
    """Appends to the audit log and keeps it within `most` rows and `days` days."""

    def __init__(self, database: Database, clock: Clock, *, most: int = 1_000_000, days: float = 365.0) -> None:
        self._database = database
        self._clock = clock
        self._most = most
        self._days = days
        self._together = Gathered(self._add)

    async def add(self, identity: str, action: str, target: str, status: int) -> None:
        """Record one act."""
        act = {"identity": identity[:300], "action": action[:200], "target": target[:500], "status": status}
        await self._together(act | {"at": self._clock.time()})

    async def _add(self, acts: Sequence[dict[str, Any]]) -> list[None]:
        async with self._database.write() as connection:
            await connection.execute(insert(AUDIT), acts)
        return [None for _ in acts]

    async def newest(self, limit: int) -> list[dict[str, Any]]:
        """The last `limit` acts, newest first."""
        query = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            return [dict(row._mapping) for row in await connection.execute(query)]

    async def prune(self) -> int:
        """Delete what is over the limits; how many rows."""
        async with self._database.write() as connection:
            highest = (await connection.execute(select(func.max(AUDIT.c.id)))).scalar() or 0
            done = await connection.execute(
                delete(AUDIT).where(
                    (AUDIT.c.at < self._clock.time() - self._days * 86_400) | (AUDIT.c.id <= highest - self._most)
                )
            )
        return done.rowcount

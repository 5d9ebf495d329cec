"""What stands behind the placeholders in runs' logs: sealed, and for a while only.

The key is a file of the server's own. A row that cannot be opened (another key) counts as forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Column, Float, String, Table, Text, delete, insert, select, update

from llmagentos.core.clock import Clock
from llmagentos.core.sealing import CannotOpen, seal, unseal
from llmagentos.storage.database import METADATA, Database
from llmagentos.storage.runs import RUNS

VALUES = Table(
    "run_values",
    METADATA,
    Column("run", String(12), primary_key=True),
    Column("sealed", Text, nullable=False),
    Column("until", Float, index=True),  # None while the run goes on
)


class ValueRecords:
    """Queries over them; `key` seals."""

    def __init__(self, database: Database, clock: Clock, key: ec.EllipticCurvePrivateKey) -> None:
        self._database = database
        self._clock = clock
        self._key = key

    async def load(self, run: str) -> dict[str, str]:
        """What stands behind the run's placeholders; empty when nothing does, or it is forgotten."""
        query = select(VALUES.c.sealed, VALUES.c.until).where(VALUES.c.run == run)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None or (row.until is not None and row.until < self._clock.time()):
            return {}
        try:
            return msgspec.json.decode(unseal(self._key, row.sealed, _purpose(run)), type=dict[str, str])
        except CannotOpen:
            return {}

    async def save(self, run: str, values: Mapping[str, str]) -> None:
        """Keep `values` in place of what was there."""
        sealed = seal(self._key.public_key(), msgspec.json.encode(values), _purpose(run))
        async with self._database.write() as connection:
            await connection.execute(delete(VALUES).where(VALUES.c.run == run))
            await connection.execute(insert(VALUES).values(run=run, sealed=sealed, until=None))

    async def expire(self, run: str, seconds: float) -> None:
        """The run has ended: forget its values after `seconds`."""
        until = self._clock.time() + seconds
        async with self._database.write() as connection:
            await connection.execute(update(VALUES).where(VALUES.c.run == run).values(until=until))

    async def prune(self) -> int:
        """Delete what is over its time, or whose run is gone; how many."""
        over = VALUES.c.until < self._clock.time()
        async with self._database.write() as connection:
            done = await connection.execute(delete(VALUES).where(over | VALUES.c.run.not_in(select(RUNS.c.id))))
        return done.rowcount


def _purpose(run: str) -> str:
    return f"values of run {run}"

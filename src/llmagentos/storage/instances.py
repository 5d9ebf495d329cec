"""Registered instances of modules: one row each, from registration to departure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import BigInteger, Column, Float, String, Table, Text, delete, insert, select, update
from sqlalchemy.engine import Row

from llmagentos.api.registry import Instance
from llmagentos.storage.database import METADATA, Database

INSTANCES = Table(
    "instances",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("module", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("owner", String(300), nullable=False),  # the identity that registered it
    Column("fence", BigInteger, nullable=False),  # the lease's fencing token
    Column("registered", Float, nullable=False),
    Column("document", Text, nullable=False),  # the whole instance as JSON
)


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """An instance, who registered it, and its lease's fencing token."""

    instance: Instance
    owner: str
    fence: int


class InstanceRecords:
    """Queries over the instances."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, record: InstanceRecord) -> None:
        """Remember a new instance."""
        async with self._database.write() as connection:
            await connection.execute(insert(INSTANCES).values(_values(record)))

    async def replace(self, instance: Instance) -> None:
        """Store what became of an instance."""
        async with self._database.write() as connection:
            await connection.execute(
                update(INSTANCES)
                .where(INSTANCES.c.id == instance.id)
                .values(state=instance.state, document=msgspec.json.encode(instance).decode())
            )

    async def remove(self, ids: Sequence[str]) -> None:
        """Forget instances."""
        async with self._database.write() as connection:
            await connection.execute(delete(INSTANCES).where(INSTANCES.c.id.in_(ids)))

    async def all(self) -> list[InstanceRecord]:
        """Every instance, oldest first."""
        query = select(INSTANCES).order_by(INSTANCES.c.registered)
        async with self._database.read() as connection:
            return [_record(row) for row in await connection.execute(query)]


def _values(record: InstanceRecord) -> dict[str, object]:
    instance = record.instance
    return {
        "id": instance.id,
        "module": instance.module,
        "state": instance.state,
        "owner": record.owner,
        "fence": record.fence,
        "registered": instance.registered,
        "document": msgspec.json.encode(instance).decode(),
    }


def _record(row: Row[tuple[object, ...]]) -> InstanceRecord:
    found = row._mapping
    return InstanceRecord(msgspec.json.decode(found["document"], type=Instance), found["owner"], found["fence"])

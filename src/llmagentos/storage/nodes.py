"""Nodes: who joined, what they are, when they were last heard, which modules they got tokens for."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import Column, Float, String, Table, Text, delete, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError

from llmagentos.api.nodes import Facts, Heartbeat
from llmagentos.core.clock import Clock
from llmagentos.storage.database import METADATA, Database

NODES = Table(
    "nodes",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("joined", Float, nullable=False),
    Column("seen", Float, nullable=False),
    Column("facts", Text, nullable=False),  # api.nodes.Facts as JSON
    Column("heartbeat", Text, nullable=False),  # api.nodes.Heartbeat as JSON
    Column("clock_offset", Float, nullable=False),
)

NODE_MODULES = Table(
    "node_modules",
    METADATA,
    Column("node", String(64), primary_key=True),
    Column("module", String(128), primary_key=True),
    Column("granted", Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node as stored. Times are seconds since the epoch."""

    name: str
    joined: float
    seen: float
    facts: Facts
    heartbeat: Heartbeat
    clock_offset: float


class NodeRecords:
    """Queries over the nodes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, name: str, facts: Facts) -> bool:
        """A new node; False when there is one of this name."""
        now = self._clock.time()
        try:
            async with self._database.write() as connection:
                await connection.execute(
                    insert(NODES).values(
                        name=name,
                        joined=now,
                        seen=now,
                        facts=msgspec.json.encode(facts).decode(),
                        heartbeat="{}",
                        clock_offset=0.0,
                    )
                )
        except IntegrityError:
            return False
        return True

    async def set_facts(self, name: str, facts: Facts) -> bool:
        """Replace a node's facts; whether there is such a node."""
        return await self._update(name, facts=msgspec.json.encode(facts).decode())

    async def beat(self, name: str, heartbeat: Heartbeat) -> bool:
        """Keep a sign of life; whether there is such a node."""
        now = self._clock.time()
        offset = heartbeat.time - now if heartbeat.time else 0.0
        return await self._update(
            name, seen=now, heartbeat=msgspec.json.encode(heartbeat).decode(), clock_offset=offset
        )

    async def _update(self, name: str, **values: object) -> bool:
        async with self._database.write() as connection:
            done = await connection.execute(update(NODES).where(NODES.c.name == name).values(**values))
        return done.rowcount == 1

    async def find(self, name: str) -> NodeRecord | None:
        """One node."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(NODES).where(NODES.c.name == name))).first()
        return _record(row) if row is not None else None

    async def all(self) -> list[NodeRecord]:
        """Every node, by name."""
        async with self._database.read() as connection:
            return [_record(row) for row in await connection.execute(select(NODES).order_by(NODES.c.name))]

    async def names(self) -> list[str]:
        """Every node's name, sorted."""
        async with self._database.read() as connection:
            return [row.name for row in await connection.execute(select(NODES.c.name).order_by(NODES.c.name))]

    async def remove(self, name: str) -> bool:
        """Forget a node; whether there was one."""
        async with self._database.write() as connection:
            await connection.execute(delete(NODE_MODULES).where(NODE_MODULES.c.node == name))
            done = await connection.execute(delete(NODES).where(NODES.c.name == name))
        return done.rowcount == 1

    async def grant_module(self, node: str, module: str, *, most: int) -> bool:
        """Remember that `node` got a token for `module`; False when it has `most` others already."""
        mine = NODE_MODULES.c.node == node
        async with self._database.write() as connection:
            known = {row.module for row in await connection.execute(select(NODE_MODULES.c.module).where(mine))}
            if module in known:
                return True
            if len(known) >= most:
                return False
            await connection.execute(insert(NODE_MODULES).values(node=node, module=module, granted=self._clock.time()))
        return True

    async def modules(self, node: str) -> list[str]:
        """Modules that `node` got tokens for, by name."""
        query = select(NODE_MODULES.c.module).where(NODE_MODULES.c.node == node).order_by(NODE_MODULES.c.module)
        async with self._database.read() as connection:
            return [row.module for row in await connection.execute(query)]


def _record(row: Row[tuple[object, ...]]) -> NodeRecord:
    found = row._mapping
    return NodeRecord(
        found["name"],
        found["joined"],
        found["seen"],
        msgspec.json.decode(found["facts"], type=Facts),
        msgspec.json.decode(found["heartbeat"], type=Heartbeat),
        found["clock_offset"],
    )

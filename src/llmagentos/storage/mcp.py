"""MCP servers that were registered through the API."""

from __future__ import annotations

import msgspec
from sqlalchemy import Column, Float, String, Table, Text, delete, insert, select

from llmagentos.core.clock import Clock
from llmagentos.core.config.outside import McpServer
from llmagentos.storage.database import METADATA, Database

SERVERS = Table(
    "mcp_servers",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("spec", Text, nullable=False),  # secrets by reference
    Column("updated", Float, nullable=False),
    Column("updated_by", String(300), nullable=False),
)


class McpRecords:
    """Queries over them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def all(self) -> dict[str, McpServer]:
        """Every server by name."""
        async with self._database.read() as connection:
            rows = (await connection.execute(select(SERVERS.c.name, SERVERS.c.spec).order_by(SERVERS.c.name))).all()
        return {row.name: msgspec.json.decode(row.spec, type=McpServer) for row in rows}

    async def put(self, name: str, server: McpServer, *, by: str) -> None:
        """Store `server` under `name`, in place of what was there."""
        values = {"spec": msgspec.json.encode(server).decode(), "updated": self._clock.time(), "updated_by": by[:300]}
        async with self._database.write() as connection:
            await connection.execute(delete(SERVERS).where(SERVERS.c.name == name))
            await connection.execute(insert(SERVERS).values(name=name, **values))

    async def delete(self, name: str) -> None:
        """Forget it."""
        async with self._database.write() as connection:
            await connection.execute(delete(SERVERS).where(SERVERS.c.name == name))

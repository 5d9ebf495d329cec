"""Agents: every version of every definition, the newest in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
from sqlalchemy import Column, Float, Integer, String, Table, Text, and_, delete, func, insert, select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from llmagentos.api.agents import AgentSpec
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict
from llmagentos.storage.database import METADATA, Database

KEEP_VERSIONS = 20

AGENTS = Table(
    "agents",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("host", String(80), nullable=False),  # "server" or "module:<name>"
    Column("updated", Float, nullable=False),
    Column("updated_by", String(300), nullable=False),
    Column("spec", Text, nullable=False),
    Column("functions", Text, nullable=False),
)


class AgentHostedElsewhere(Conflict):
    """The name belongs to an agent with another host."""

    code = "agent_hosted_elsewhere"


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """One version of an agent. `updated` is seconds since the epoch."""

    spec: AgentSpec
    version: int
    host: str
    updated: float
    updated_by: str
    functions: list[str]

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.spec.name


class AgentRecords:
    """Queries over the agents."""

    def __init__(self, database: Database, clock: Clock, *, keep: int = KEEP_VERSIONS) -> None:
        self._database = database
        self._clock = clock
        self._keep = keep

    async def put(
        self, spec: AgentSpec, *, host: str, by: str, functions: list[str] | None = None
    ) -> tuple[AgentRecord, Literal["created", "changed", "unchanged"]]:
        """Put `spec` in force and say what that changed; versions over the limit are forgotten.

        Raises `AgentHostedElsewhere` when another host has an agent of this name.
        """
        async with self._database.write() as connection:
            current = await _current(connection, spec.name)
            if current is not None and current.host != host:
                raise AgentHostedElsewhere(
                    f"the agent {spec.name!r} is hosted by {current.host}, not by {host}",
                    hint=f"choose another name, or `llmctl delete agent {spec.name}` first",
                )
            known = functions or []
            if current is not None and (current.spec, current.functions) == (spec, known):
                return current, "unchanged"
            version = current.version + 1 if current is not None else 1
            record = AgentRecord(spec, version, host, self._clock.time(), by, known)
            await connection.execute(insert(AGENTS).values(_values(record)))
            await connection.execute(
                delete(AGENTS).where(AGENTS.c.name == spec.name, AGENTS.c.version <= version - self._keep)
            )
        return record, "created" if current is None else "changed"

    async def current(self, name: str) -> AgentRecord | None:
        """The version in force."""
        async with self._database.read() as connection:
            return await _current(connection, name)

    async def version(self, name: str, version: int) -> AgentRecord | None:
        """One version; the one in force when that is no longer kept."""
        query = select(AGENTS).where(AGENTS.c.name == name, AGENTS.c.version == version)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
            return _record(row) if row is not None else await _current(connection, name)

    async def versions(self, name: str) -> list[AgentRecord]:
        """All that are kept, newest first."""
        query = select(AGENTS).where(AGENTS.c.name == name).order_by(AGENTS.c.version.desc())
        async with self._database.read() as connection:
            return [_record(row) for row in (await connection.execute(query)).all()]

    async def all(self) -> list[AgentRecord]:
        """The version in force of every agent, by name."""
        newest = select(AGENTS.c.name, func.max(AGENTS.c.version).label("version")).group_by(AGENTS.c.name).subquery()
        query = (
            select(AGENTS)
            .join(newest, and_(AGENTS.c.name == newest.c.name, AGENTS.c.version == newest.c.version))
            .order_by(AGENTS.c.name)
        )
        async with self._database.read() as connection:
            return [_record(row) for row in (await connection.execute(query)).all()]

    async def delete(self, name: str) -> bool:
        """Forget an agent and all its versions; whether there was one."""
        async with self._database.write() as connection:
            done = await connection.execute(delete(AGENTS).where(AGENTS.c.name == name))
        return done.rowcount > 0


async def _current(connection: AsyncConnection, name: str) -> AgentRecord | None:
    query = select(AGENTS).where(AGENTS.c.name == name).order_by(AGENTS.c.version.desc()).limit(1)
    row = (await connection.execute(query)).first()
    return _record(row) if row is not None else None


def _values(record: AgentRecord) -> dict[str, object]:
    return {
        "name": record.name,
        "version": record.version,
        "host": record.host,
        "updated": record.updated,
        "updated_by": record.updated_by[:300],
        "spec": msgspec.json.encode(record.spec).decode(),
        "functions": msgspec.json.encode(record.functions).decode(),
    }


def _record(row: Row[tuple[object, ...]]) -> AgentRecord:
    found = row._mapping
    return AgentRecord(
        msgspec.json.decode(found["spec"], type=AgentSpec),
        found["version"],
        found["host"],
        found["updated"],
        found["updated_by"],
        msgspec.json.decode(found["functions"], type=list[str]),
    )

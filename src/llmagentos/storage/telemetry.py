"""What nodes measured and logged.

A sample is one row: everything that a node measured at a moment, compressed. Rollups hold the same in
steps of five minutes and an hour, one row a block (an hour of 5-minute cells, a day of hours). Lines of
logs are rows of their own.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from re import compile as pattern
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite

from llmagentos.api.telemetry import Batch, LogEntry, Sample
from llmagentos.storage.database import METADATA, Database

_ID = BigInteger().with_variant(Integer, "sqlite")
_PRUNED = 5000
"""Rows deleted in one transaction: others write in between."""

SAMPLES = Table(
    "node_samples",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("node", String(63), nullable=False),
    Column("at", Float, nullable=False, index=True),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("node", "at"),
)
ROLLUPS = Table(
    "node_rollups",
    METADATA,
    Column("node", String(63), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("at", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Index("ix_node_rollups_step_at", "step", "at"),
)
LOGS = Table(
    "node_logs",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("node", String(63), nullable=False),
    Column("at", Float, nullable=False, index=True),
    Column("source", String(255), nullable=False),
    Column("text", Text, nullable=False),
    Index("ix_node_logs_node_id", "node", "id"),
)
SPOOLS = Table(
    "node_spools",
    METADATA,
    Column("node", String(63), primary_key=True),
    Column("spool", String(32), nullable=False),
    Column("number", BigInteger, nullable=False),
)
PROGRESS = Table(
    "telemetry_progress",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("id", BigInteger, nullable=False),
)

Block = tuple[str, int, int]
"""Node, step, begin."""
Cells = dict[str, list[list[float]]]
"""By series, its cells: begin, value, least, most, count."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stored sample."""

    id: int
    node: str
    sample: Sample


class TelemetryRecords:
    """Queries over samples, rollups and lines."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    async def add(self, batches: Sequence[tuple[str, Batch]]) -> list[LogEntry]:
        """Store batches of nodes; those that were stored before are left out. Returns the lines that are new."""
        async with self._database.write() as connection:
            nodes = {node for node, _ in batches}
            query = select(SPOOLS).where(SPOOLS.c.node.in_(nodes))
            known = {row.node: (row.spool, row.number) for row in await connection.execute(query)}
            fresh: list[tuple[str, Batch]] = []
            for node, batch in batches:
                spool, number = known.get(node, ("", 0))
                if batch.spool != spool or batch.number > number:
                    known[node] = (batch.spool, batch.number)
                    fresh.append((node, batch))
            samples = [_sample_row(node, sample) for node, batch in fresh for sample in batch.samples]
            if samples:
                await connection.execute(self._insert(SAMPLES).on_conflict_do_nothing(), samples)
            lines = [_line_row(node, line) for node, batch in fresh for line in batch.lines]
            entries: list[LogEntry] = []
            if lines:
                made = await connection.execute(
                    self._insert(LOGS).returning(LOGS.c.id, sort_by_parameter_order=True), lines
                )
                entries = [LogEntry(id=number, **line) for (number,), line in zip(made.all(), lines, strict=True)]
            for node, (spool, number) in known.items():
                seen = {"spool": spool, "number": number}
                upsert = self._insert(SPOOLS).values(node=node, **seen)
                await connection.execute(upsert.on_conflict_do_update(index_elements=["node"], set_=seen))
        return entries

    async def samples(self, node: str, *, since: float, until: float, after_id: int = 0) -> list[Sample]:
        """A node's samples by time."""
        query = select(SAMPLES.c.at, SAMPLES.c.data).where(
            SAMPLES.c.node == node, SAMPLES.c.at >= since, SAMPLES.c.at <= until, SAMPLES.c.id > after_id
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(SAMPLES.c.at))).all()
        return [Sample(at, _unpacked(data, dict[str, float])) for at, data in rows]

    async def after(self, number: int, *, upto: int, limit: int) -> list[Row]:
        """Samples of all nodes in the order in which they were stored."""
        query = select(SAMPLES).where(SAMPLES.c.id > number, SAMPLES.c.id <= upto).order_by(SAMPLES.c.id).limit(limit)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [Row(row.id, row.node, Sample(row.at, _unpacked(row.data, dict[str, float]))) for row in rows]

    async def newest(self) -> dict[str, Sample]:
        """The last sample of every node."""
        last = select(SAMPLES.c.node, func.max(SAMPLES.c.at)).group_by(SAMPLES.c.node)
        query = select(SAMPLES.c.node, SAMPLES.c.at, SAMPLES.c.data).where(
            tuple_(SAMPLES.c.node, SAMPLES.c.at).in_(last)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return {node: Sample(at, _unpacked(data, dict[str, float])) for node, at, data in rows}

    async def last(self, node: str) -> Sample | None:
        """The last sample of one node."""
        query = select(SAMPLES.c.at, SAMPLES.c.data).where(SAMPLES.c.node == node).order_by(SAMPLES.c.at.desc())
        async with self._database.read() as connection:
            row = (await connection.execute(query.limit(1))).first()
        return Sample(row.at, _unpacked(row.data, dict[str, float])) if row is not None else None

    async def highest(self) -> int:
        """The id of the newest sample."""
        async with self._database.read() as connection:
            return int((await connection.execute(select(func.max(SAMPLES.c.id)))).scalar() or 0)

    async def rolled(self) -> int:
        """Samples up to this id are in the rollups."""
        async with self._database.read() as connection:
            found = (await connection.execute(select(PROGRESS.c.id).where(PROGRESS.c.name == "rollup"))).scalar()
        return int(found or 0)

    async def blocks(self, wanted: Sequence[Block]) -> dict[Block, Cells]:
        """Those of the blocks that are there."""
        found: dict[Block, Cells] = {}
        key = tuple_(ROLLUPS.c.node, ROLLUPS.c.step, ROLLUPS.c.at)
        async with self._database.read() as connection:
            for begin in range(0, len(wanted), 200):
                query = select(ROLLUPS).where(key.in_(wanted[begin : begin + 200]))
                for row in await connection.execute(query):
                    found[row.node, row.step, row.at] = _unpacked(row.data, Cells)
        return found

    async def rollup(self, node: str, step: int, *, since: float, until: float) -> list[Cells]:
        """A node's blocks of a step that begin in a time, in order."""
        query = select(ROLLUPS.c.data).where(
            ROLLUPS.c.node == node, ROLLUPS.c.step == step, ROLLUPS.c.at >= since, ROLLUPS.c.at <= until
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(ROLLUPS.c.at))).scalars().all()
        return [_unpacked(data, Cells) for data in rows]

    async def put_blocks(self, blocks: Mapping[Block, Cells], rolled: int) -> None:
        """Store blocks, and up to which sample they hold everything."""
        rows = [{"node": n, "step": s, "at": at, "data": _packed(cells)} for (n, s, at), cells in blocks.items()]
        async with self._database.write() as connection:
            if rows:
                insert = self._insert(ROLLUPS)
                key, data = ["node", "step", "at"], insert.excluded.data
                await connection.execute(insert.on_conflict_do_update(index_elements=key, set_={"data": data}), rows)
            mark = self._insert(PROGRESS).values(name="rollup", id=rolled)
            await connection.execute(mark.on_conflict_do_update(index_elements=["name"], set_={"id": rolled}))

    async def last_line(self, node: str) -> int:
        """The id of the node's newest line; 0 when there is none."""
        async with self._database.read() as connection:
            found = await connection.execute(select(func.max(LOGS.c.id)).where(LOGS.c.node == node))
        return int(found.scalar() or 0)

    async def lines(
        self, node: str, *, source: str | None, text: str | None, since: float | None, limit: int, after: int = 0
    ) -> list[LogEntry]:
        """The newest lines that fit, oldest first; only those after the id `after`.

        `source` is a glob, `text` is part of the line in any case.
        """
        query = select(LOGS).where(LOGS.c.node == node, LOGS.c.id > after).order_by(LOGS.c.id.desc()).limit(limit)
        if since is not None:
            query = query.where(LOGS.c.at >= since)
        if source is not None:
            names = await self._sources(node)
            glob = pattern(translate(source))
            query = query.where(LOGS.c.source.in_([name for name in names if glob.fullmatch(name)]))
        if text is not None:
            query = query.where(func.lower(LOGS.c.text).contains(text.lower(), autoescape=True))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [LogEntry(**row) for row in reversed(rows)]

    async def _sources(self, node: str) -> list[str]:
        async with self._database.read() as connection:
            query = select(LOGS.c.source).where(LOGS.c.node == node).distinct()
            return list((await connection.execute(query)).scalars().all())

    async def nodes(self) -> set[str]:
        """All nodes that ever sent something that is still here."""
        async with self._database.read() as connection:
            return set((await connection.execute(select(SPOOLS.c.node))).scalars().all())

    async def forget(self, node: str) -> None:
        """Everything of a node that was removed."""
        async with self._database.write() as connection:
            for table in (SAMPLES, ROLLUPS, LOGS, SPOOLS):
                await connection.execute(delete(table).where(table.c.node == node))

    async def prune(self, *, samples: float, rollups: Mapping[int, float], logs: float, lines: int) -> int:
        """Delete what is older than these times, and of every node all but its newest `lines` lines; how many rows."""
        gone = await self._prune(SAMPLES, SAMPLES.c.at < samples)
        for step, before in rollups.items():
            async with self._database.write() as connection:
                old = delete(ROLLUPS).where(ROLLUPS.c.step == step, ROLLUPS.c.at < before)
                gone += (await connection.execute(old)).rowcount
        gone += await self._prune(LOGS, LOGS.c.at < logs)
        async with self._database.read() as connection:
            counted = select(LOGS.c.node, func.count()).group_by(LOGS.c.node).having(func.count() > lines)
            full = [node for node, _ in (await connection.execute(counted)).all()]
        for node in full:
            async with self._database.read() as connection:
                newest = select(LOGS.c.id).where(LOGS.c.node == node).order_by(LOGS.c.id.desc())
                oldest = (await connection.execute(newest.offset(lines - 1).limit(1))).scalar_one()
            gone += await self._prune(LOGS, (LOGS.c.node == node) & (LOGS.c.id < oldest))
        return gone

    async def _prune(self, table: Table, which: Any) -> int:
        gone = 0
        while True:
            some = select(table.c.id).where(which).limit(_PRUNED)
            async with self._database.write() as connection:
                count = (await connection.execute(delete(table).where(table.c.id.in_(some)))).rowcount
            gone += count
            if count < _PRUNED:
                return gone


def _sample_row(node: str, sample: Sample) -> dict[str, Any]:
    return {"node": node, "at": sample.at, "data": _packed(sample.values)}


def _line_row(node: str, line: Any) -> dict[str, Any]:
    # PostgreSQL's text holds no NUL.
    return {"node": node, "at": line.at, "source": line.source.replace("\0", ""), "text": line.text.replace("\0", "")}


def _packed(value: Any) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(value), 1)


def _unpacked(data: bytes, kind: Any) -> Any:
    return msgspec.msgpack.decode(zlib.decompress(data), type=kind)

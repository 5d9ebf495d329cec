"""What agents remember: facts by agent and user, found by words and by vectors.

Words: FTS5 (bm25) in SQLite, `tsvector` in PostgreSQL, both over terms that are made here. The FTS5 table
is an index and no record: it is made at the start, and made again when it does not fit the facts.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from llmagentos.api.memory import Fact
from llmagentos.core.clock import Clock
from llmagentos.storage.database import METADATA, Database
from llmagentos.storage.terms import index_terms, query_terms

FACTS = Table(
    "memory_facts",
    METADATA,
    Column("seq", Integer, primary_key=True),
    Column("id", String(16), nullable=False, unique=True),
    Column("agent", String(63), nullable=False),
    Column("user", String(300), nullable=False),  # empty: shared by all users of the agent
    Column("text", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("terms", Text, nullable=False),
    Column("vector", LargeBinary),  # float32; None until the embedding engine was there
    Column("created", Float, nullable=False),
    Column("used", Float, nullable=False),
    Column("until", Float, nullable=False, index=True),
    Index("ix_memory_facts_scope", "agent", "user", "used"),
)
_INDEX = "CREATE VIRTUAL TABLE IF NOT EXISTS memory_index USING fts5(terms, tokenize='porter ascii')"
_MOST_LISTED = 1000


class FactRecords:
    """Queries over the facts. Every one is within the memory of one agent and one user."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def begin(self) -> None:
        """Make the index where there is none, or another one than the facts need."""
        if not self._database.is_sqlite:
            return
        async with self._database.write() as connection:
            await connection.execute(text(_INDEX))
            indexed = (
                await connection.execute(text("SELECT count(*), coalesce(max(rowid), 0) FROM memory_index"))
            ).one()
            facts = (await connection.execute(select(func.count(), func.coalesce(func.max(FACTS.c.seq), 0)))).one()
            if tuple(indexed) != tuple(facts):
                await connection.execute(text("DELETE FROM memory_index"))
                copy = "INSERT INTO memory_index (rowid, terms) SELECT seq, terms FROM memory_facts"
                await connection.execute(text(copy))

    async def add(self, fact: Fact, *, vector: Sequence[float] | None, most: int, until: float) -> Fact:
        """Store `fact`; the same text again, or the same id, is the fact that is there. Over `most` of this memory
        those go that were not used for longest."""
        async with self._database.write() as connection:
            same = (FACTS.c.id == fact.id) | (_scope(fact.agent, fact.user) & (FACTS.c.text == fact.text))
            known = (await connection.execute(select(FACTS).where(same))).first()
            if known is not None:
                await connection.execute(
                    update(FACTS).where(FACTS.c.seq == known.seq).values(used=fact.used, until=until)
                )
                return _fact(known)
            values: dict[str, Any] = {
                **msgspec.structs.asdict(fact),
                "tags": msgspec.json.encode(fact.tags).decode(),
                "terms": index_terms(" ".join([fact.text, *fact.tags])),
                "vector": _packed(vector) if vector is not None else None,
                "until": until,
            }
            del values["score"]
            done = await connection.execute(insert(FACTS).values(values))
            if self._database.is_sqlite:
                row = {"seq": done.lastrowid, "terms": values["terms"]}
                await connection.execute(text("INSERT INTO memory_index (rowid, terms) VALUES (:seq, :terms)"), row)
            newest = _newest(fact.agent, fact.user, most)
            await self._delete(connection, _scope(fact.agent, fact.user) & FACTS.c.seq.not_in(newest))
        return fact

    async def by_words(self, agent: str, user: str, query: str, *, limit: int) -> list[int]:
        """The facts with words of `query`, best first, by their number."""
        terms = query_terms(query)
        if not terms:
            return []
        async with self._database.read() as connection:
            if self._database.is_sqlite:
                found = await connection.execute(
                    text(
                        "SELECT f.seq FROM memory_index JOIN memory_facts f ON f.seq = memory_index.rowid "
                        "WHERE memory_index MATCH :terms AND f.agent = :agent AND f.user = :user AND f.until > :now "
                        "ORDER BY bm25(memory_index) LIMIT :limit"
                    ),
                    {
                        "terms": " OR ".join(f'"{term}"' for term in terms),
                        "agent": agent,
                        "user": user,
                        "now": self._clock.time(),
                        "limit": limit,
                    },
                )
                return list(found.scalars())
            wanted = func.to_tsquery(text("'english'"), " | ".join(f"'{term}'" for term in terms))
            vector = func.to_tsvector(text("'english'"), FACTS.c.terms)
            query_ = (
                select(FACTS.c.seq)
                .where(self._live(agent, user) & vector.op("@@")(wanted))
                .order_by(func.ts_rank(vector, wanted).desc(), FACTS.c.seq.desc())
                .limit(limit)
            )
            return list((await connection.execute(query_)).scalars())

    async def vectors(self, agent: str, user: str) -> dict[int, array[float] | None]:
        """The vectors of this memory, by the facts' numbers; None for those that have none yet."""
        query = select(FACTS.c.seq, FACTS.c.vector).where(self._live(agent, user))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return {row.seq: _unpacked(row.vector) if row.vector is not None else None for row in rows}

    async def put_vectors(self, vectors: Mapping[int, Sequence[float]]) -> None:
        """Store vectors that were missing."""
        async with self._database.write() as connection:
            for seq, vector in vectors.items():
                await connection.execute(update(FACTS).where(FACTS.c.seq == seq).values(vector=_packed(vector)))

    async def texts(self, numbers: Sequence[int]) -> dict[int, Fact]:
        """The facts with these numbers."""
        async with self._database.read() as connection:
            rows = (await connection.execute(select(FACTS).where(FACTS.c.seq.in_(numbers)))).all()
        return {row.seq: _fact(row) for row in rows}

    async def use(self, numbers: Sequence[int], *, until: float) -> None:
        """A search brought these: they stay until then."""
        values = {"used": self._clock.time(), "until": until}
        async with self._database.write() as connection:
            await connection.execute(update(FACTS).where(FACTS.c.seq.in_(numbers)).values(**values))

    async def listing(self, user: str, agent: str | None, *, limit: int = _MOST_LISTED) -> list[Fact]:
        """The facts of a user, the newest first."""
        wanted = (FACTS.c.user == user) & (FACTS.c.until > self._clock.time())
        if agent is not None:
            wanted &= FACTS.c.agent == agent
        query = select(FACTS).where(wanted).order_by(FACTS.c.created.desc(), FACTS.c.seq.desc()).limit(limit)
        async with self._database.read() as connection:
            return [_fact(row) for row in (await connection.execute(query)).all()]

    async def forget(self, user: str, *, fact: str | None = None, agent: str | None = None) -> int:
        """Delete one fact of a user, or all that an agent has of them; how many."""
        wanted = FACTS.c.user == user
        wanted &= FACTS.c.id == fact if fact is not None else FACTS.c.agent == agent
        async with self._database.write() as connection:
            return await self._delete(connection, wanted)

    async def prune(self) -> int:
        """Delete facts that no search brought for their retention; how many."""
        async with self._database.write() as connection:
            return await self._delete(connection, FACTS.c.until < self._clock.time())

    def _live(self, agent: str, user: str) -> ColumnElement[bool]:
        return _scope(agent, user) & (FACTS.c.until > self._clock.time())

    async def _delete(self, connection: AsyncConnection, wanted: ColumnElement[bool]) -> int:
        numbers = list((await connection.execute(select(FACTS.c.seq).where(wanted))).scalars())
        for start in range(0, len(numbers), 500):
            part = numbers[start : start + 500]
            await connection.execute(delete(FACTS).where(FACTS.c.seq.in_(part)))
            if self._database.is_sqlite:
                gone = [{"seq": seq} for seq in part]
                await connection.execute(text("DELETE FROM memory_index WHERE rowid = :seq"), gone)
        return len(numbers)


def _scope(agent: str, user: str) -> ColumnElement[bool]:
    return (FACTS.c.agent == agent) & (FACTS.c.user == user)


def _newest(agent: str, user: str, most: int) -> Any:
    return select(FACTS.c.seq).where(_scope(agent, user)).order_by(FACTS.c.used.desc(), FACTS.c.seq.desc()).limit(most)


def _fact(row: Row[Any]) -> Fact:
    tags = msgspec.json.decode(row.tags, type=list[str])
    return Fact(row.id, row.agent, row.user, row.text, row.created, row.used, tags)


def _packed(vector: Sequence[float]) -> bytes:
    return array("f", vector).tobytes()


def _unpacked(stored: bytes) -> array[float]:
    vector = array("f")
    vector.frombytes(stored)
    return vector

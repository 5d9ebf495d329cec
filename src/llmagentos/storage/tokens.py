"""Tokens and console sessions: who may call, as hashes only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Integer,
    String,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Row

from llmagentos.core.clock import Clock
from llmagentos.core.ids import new_id
from llmagentos.security import tokens
from llmagentos.security.identity import Identity, Kind
from llmagentos.storage.database import METADATA, Database
from llmagentos.storage.gathering import Gathered

TOKENS = Table(
    "tokens",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("session", Boolean, nullable=False),  # a console login rather than a bearer token
    Column("parent", String(32)),  # the token that a session was opened with
    Column("one_time", Boolean, nullable=False),
    Column("created", Float, nullable=False),
    Column("created_by", String(300), nullable=False),
    Column("expires", Float),
    Column("used", Float),  # when a one-time token was used up
    Column("uses_left", Integer),  # of a one-time token: how often it still works
    Column("binding", String(64)),  # thumbprint of the TLS client certificate that it works with (RFC 8705)
    Column("scope", Text),  # of a join token: `Scope` as JSON
)
USED_S = 600.0
"""So long after its last use a join token is still known: a machine that did not hear the answer asks again."""


class Scope(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a join token brings the nodes that join with it."""

    modules: list[str] = []
    """Modules that they may have tokens for, as patterns."""
    labels: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token without its secret. Times are seconds since the epoch."""

    id: str
    kind: Kind
    subject: str
    one_time: bool
    created: float
    created_by: str
    expires: float | None
    used: float | None
    uses_left: int | None = None
    binding: str | None = None

    @property
    def identity(self) -> Identity:
        """Whom it stands for."""
        return Identity(self.kind, self.subject, self.id)


class TokenRecords:
    """Queries over the tokens."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._created = Gathered(self._insert)
        self._consumed = Gathered(self._consume)

    async def create(
        self,
        kind: Kind,
        subject: str,
        *,
        by: str,
        ttl: float | None = None,
        one_time: bool = False,
        uses: int = 1,
        scope: Scope | None = None,
        session_of: str | None = None,
        binding: str | None = None,
    ) -> tuple[str, TokenRecord]:
        """A new token, returned this once, and its record; `ttl` in seconds. A one-time token works `uses` times."""
        secret = tokens.mint(kind)
        now = self._clock.time()
        left = uses if one_time else None
        expires = now + ttl if ttl else None
        record = TokenRecord(new_id(), kind, subject, one_time, now, by, expires, None, left, binding)
        await self._created(
            {
                "id": record.id,
                "digest": tokens.digest(secret),
                "kind": kind.value,
                "subject": subject,
                "session": session_of is not None,
                "parent": session_of or None,
                "one_time": one_time,
                "created": now,
                "created_by": by,
                "expires": record.expires,
                "uses_left": left,
                "binding": binding,
                "scope": msgspec.json.encode(scope).decode() if scope is not None else None,
            }
        )
        return secret, record

    async def _insert(self, rows: Sequence[dict[str, object]]) -> list[None]:
        async with self._database.write() as connection:
            await connection.execute(insert(TOKENS), rows)
        return [None for _ in rows]

    async def find(self, keys: Sequence[tuple[str, bool]]) -> list[TokenRecord | None]:
        """The tokens with these digests, each a session or not, where they are still good.

        Also a join token that was used up just now: who used it may not have heard the answer.
        """
        query = select(TOKENS).where(TOKENS.c.digest.in_({digest for digest, _ in keys}))
        async with self._database.read() as connection:
            found = {(row.digest, row.session): _record(row) for row in await connection.execute(query)}
        good = {key: record for key, record in found.items() if self._good(record) or self._just_used(record)}
        return [good.get(key) for key in keys]

    async def holds(self, token_id: str) -> bool:
        """Whether this token (or session) can still be used."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(TOKENS).where(TOKENS.c.id == token_id))).first()
        return row is not None and self._good(_record(row))

    def _good(self, record: TokenRecord) -> bool:
        expired = record.expires is not None and record.expires <= self._clock.time()
        return not expired and record.used is None

    def _just_used(self, record: TokenRecord) -> bool:
        joins = record.kind is Kind.JOIN and record.used is not None
        return joins and self._clock.time() - (record.used or 0.0) < USED_S

    async def consume(self, token_id: str) -> Scope | None:
        """Use a one-time token; what it brings, or None when it was used up."""
        return await self._consumed(token_id)

    async def _consume(self, ids: Sequence[str]) -> list[Scope | None]:
        now, wanted = self._clock.time(), Counter(ids)
        unused = TOKENS.c.used.is_(None) & or_(TOKENS.c.expires.is_(None), TOKENS.c.expires > now)
        good = TOKENS.c.id.in_(wanted) & unused & (TOKENS.c.uses_left > 0)
        async with self._database.write() as connection:
            found = (await connection.execute(select(TOKENS).where(good).order_by(TOKENS.c.id).with_for_update())).all()
            given = {row.id: min(row.uses_left, wanted[row.id]) for row in found}
            used = update(TOKENS).where(TOKENS.c.id == bindparam("of"))
            used = used.values(uses_left=bindparam("left"), used=bindparam("at"))
            lefts = [(row.id, row.uses_left - given[row.id]) for row in found]
            if lefts:
                rows = [{"of": id_, "left": left, "at": None if left else now} for id_, left in lefts]
                await connection.execute(used, rows)
        scopes = {row.id: msgspec.json.decode(row.scope, type=Scope) if row.scope else Scope() for row in found}
        answers: list[Scope | None] = []
        for id_ in ids:
            left = given.get(id_, 0)
            answers.append(scopes[id_] if left else None)
            given[id_] = left - 1 if left else 0
        return answers

    async def all(self) -> list[TokenRecord]:
        """Every bearer token that can still be used, oldest first."""
        query = select(TOKENS).where(TOKENS.c.session.is_(False)).order_by(TOKENS.c.created)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [record for row in rows if self._good(record := _record(row))]

    async def revoke(self, token_id: str) -> bool:
        """Forget a token and the sessions opened with it; whether there was one."""
        async with self._database.write() as connection:
            done = await connection.execute(
                delete(TOKENS).where(or_(TOKENS.c.id == token_id, TOKENS.c.parent == token_id))
            )
        return done.rowcount > 0

    async def extend(self, kind: Kind, subject: str, ttl: float) -> None:
        """Have the tokens of one run, node, module or person live for `ttl` seconds from now."""
        async with self._database.write() as connection:
            await connection.execute(
                update(TOKENS)
                .where(TOKENS.c.kind == kind.value, TOKENS.c.subject == subject)
                .values(expires=self._clock.time() + ttl)
            )

    async def revoke_subject(self, kind: Kind, subject: str, *, keep: int = 0) -> int:
        """Forget every token of one node, module or person, but for the `keep` newest; how many."""
        theirs = (TOKENS.c.kind == kind.value) & (TOKENS.c.subject == subject)
        query = select(TOKENS.c.id).where(theirs).order_by(TOKENS.c.created.desc()).offset(keep).limit(10_000)
        async with self._database.write() as connection:
            old = [row.id for row in await connection.execute(query)] if keep else None
            which = theirs if old is None else TOKENS.c.id.in_(old)
            done = await connection.execute(delete(TOKENS).where(which))
        return done.rowcount

    async def revoke_made_by(self, by: str, *, subject: str | None = None, keep: int = 0) -> int:
        """Forget the tokens that `by` made (for `subject` alone), but for the `keep` newest; how many."""
        made = TOKENS.c.created_by == by
        if subject is not None:
            made &= TOKENS.c.subject == subject
        query = select(TOKENS.c.id).where(made).order_by(TOKENS.c.created.desc()).offset(keep).limit(10_000)
        async with self._database.write() as connection:
            old = [row.id for row in await connection.execute(query)]
            done = await connection.execute(delete(TOKENS).where(or_(TOKENS.c.id.in_(old), TOKENS.c.parent.in_(old))))
        return done.rowcount

    async def prune(self) -> int:
        """Delete what expired or was used up more than a day ago; how many."""
        limit = self._clock.time() - 86_400
        async with self._database.write() as connection:
            done = await connection.execute(delete(TOKENS).where(or_(TOKENS.c.expires < limit, TOKENS.c.used < limit)))
        return done.rowcount


def _record(row: Row[tuple[object, ...]]) -> TokenRecord:
    found = row._mapping
    return TokenRecord(
        found["id"],
        Kind(found["kind"]),
        found["subject"],
        found["one_time"],
        found["created"],
        found["created_by"],
        found["expires"],
        found["used"],
        found["uses_left"],
        found["binding"],
    )

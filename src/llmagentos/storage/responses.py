"""Responses of models that may be read again or answered to: a row each, for who asked and nobody else.

A row holds its own input and answer; what came before is the row of `previous`. Rows are kept for
`retention.responses_days`, of one owner the newest `retention.responses_kept` and `retention.responses_bytes`.
"""

from __future__ import annotations

import re

import msgspec
from sqlalchemy import Column, Float, Index, Integer, String, Table, Text, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from llmagentos.api.responses import Item, ModelResponse
from llmagentos.core.clock import Clock
from llmagentos.core.errors import InvalidInput
from llmagentos.storage.database import METADATA, Database

MOST_TURNS = 500
"""Responses in a row, each the answer to the one before."""
MOST_BYTES = 32 * 1024 * 1024
"""Of all of them together: they are read into memory at once, and no model takes as much."""

_SLACK = 8
"""An owner's responses may be this part over the limits until the oldest are deleted."""
_OWNERS = 10_000

RESPONSES = Table(
    "llm_responses",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("owner", String(300), nullable=False),
    Column("at", Float, nullable=False, index=True),
    Column("previous", String(64)),
    Column("record", Text, nullable=False),
    Column("size", Integer, nullable=False),  # of the record, in bytes
    Index("ix_llm_responses_owner_at", "owner", "at"),
)


class StoredResponse(msgspec.Struct, frozen=True):
    """A response and what it answers."""

    input: list[Item]
    response: ModelResponse


_ID = re.compile(r"resp_[0-9a-z]{1,59}")
_DECODER = msgspec.json.Decoder(StoredResponse)


class ResponseRecords:
    """Queries over the responses. `owner` is an identity's text; what belongs to another one is not there."""

    def __init__(self, database: Database, clock: Clock, *, days: float, most: int, most_bytes: int) -> None:
        self._database = database
        self._clock = clock
        self._days = days
        self._most = most
        self._most_bytes = most_bytes
        self._grown: dict[str, tuple[int, int]] = {}
        """Responses and bytes that came since an owner's oldest were deleted."""

    async def add(self, owner: str, stored: StoredResponse) -> None:
        """Store a response that has ended. The owner's oldest go when they are a little over the limits."""
        record = msgspec.json.encode(stored)
        row = {
            "id": stored.response.id,
            "owner": owner,
            "at": self._clock.time(),
            "previous": stored.response.previous_response_id,
            "record": record.decode(),
            "size": len(record),
        }
        count, size = self._grown.pop(owner, (0, 0))
        count, size = count + 1, size + len(record)
        full = count >= self._most / _SLACK or size >= self._most_bytes / _SLACK
        async with self._database.write() as connection:
            await connection.execute(RESPONSES.insert(), row)
            if full:
                await self._tidy(connection, owner)
        self._grown[owner] = (0, 0) if full else (count, size)
        if len(self._grown) > _OWNERS:
            del self._grown[next(iter(self._grown))]

    async def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """One response."""
        found = await self.chain(owner, response_id, most=1)
        return found[0] if found else None

    async def chain(self, owner: str, response_id: str, *, most: int = MOST_TURNS + 1) -> list[StoredResponse]:
        """A response after those that it followed, the first one first; none when it or one of them is gone.

        Raises `InvalidInput` for more than `MOST_TURNS` or `MOST_BYTES`.
        """
        found: list[StoredResponse] = []
        size = 0
        wanted = response_id if _ID.fullmatch(response_id) else None
        async with self._database.read() as connection:
            while wanted is not None and len(found) < most:
                query = select(RESPONSES.c.record).where(RESPONSES.c.id == wanted, RESPONSES.c.owner == owner)
                record = (await connection.execute(query)).scalar_one_or_none()
                if record is None:
                    return []
                if (size := size + len(record)) > MOST_BYTES and found:
                    raise InvalidInput(
                        f"{response_id!r} follows responses of more than {MOST_BYTES} bytes",
                        hint="begin a new conversation, with a summary of this one as its input",
                        param="previous_response_id",
                    )
                found.append(_DECODER.decode(record))
                wanted = found[-1].response.previous_response_id
        if len(found) > MOST_TURNS:
            raise InvalidInput(
                f"{response_id!r} follows more than {MOST_TURNS} responses",
                hint="begin a new conversation, with a summary of this one as its input",
                param="previous_response_id",
            )
        return found[::-1]

    async def remove(self, owner: str, response_id: str) -> bool:
        """Delete a response; False when there is none."""
        if not _ID.fullmatch(response_id):
            return False
        async with self._database.write() as connection:
            done = await connection.execute(
                delete(RESPONSES).where(RESPONSES.c.id == response_id, RESPONSES.c.owner == owner)
            )
        return done.rowcount > 0

    async def prune(self) -> int:
        """Delete what is older than the retention, and of each owner what is over the limit; how many."""
        oldest = self._clock.time() - self._days * 86_400
        over = or_(func.count() > self._most, func.sum(RESPONSES.c.size) > self._most_bytes)
        async with self._database.read() as connection:
            rows = await connection.execute(select(RESPONSES.c.owner).group_by(RESPONSES.c.owner).having(over))
            crowded = list(rows.scalars())
        async with self._database.write() as connection:
            done = await connection.execute(delete(RESPONSES).where(RESPONSES.c.at < oldest))
            total = done.rowcount
            for owner in crowded:
                total += await self._tidy(connection, owner)
        return total

    async def _tidy(self, connection: AsyncConnection, owner: str) -> int:
        """Delete what of the owner is over the limits, the oldest first; how many."""
        newest = (RESPONSES.c.at.desc(), RESPONSES.c.id)
        ranked = (
            select(
                RESPONSES.c.id,
                func.row_number().over(order_by=newest).label("place"),
                func.sum(RESPONSES.c.size).over(order_by=newest, rows=(None, 0)).label("bytes"),
            )
            .where(RESPONSES.c.owner == owner)
            .subquery()
        )
        over = select(ranked.c.id).where(or_(ranked.c.place > self._most, ranked.c.bytes > self._most_bytes))
        return (await connection.execute(delete(RESPONSES).where(RESPONSES.c.id.in_(over)))).rowcount

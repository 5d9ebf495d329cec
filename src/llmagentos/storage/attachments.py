"""Who uploaded which file for a run: the bytes are blobs, a row says whose they are and since when.

A row goes when no run was asked with it for the retention, and with the last row the blob.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, String, Table, delete, insert, select, update

from llmagentos.core.clock import Clock
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import METADATA, Database

FILES = Table(
    "attachments",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("owner", String(300), primary_key=True),
    Column("type", String(100), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("used", Float, nullable=False, index=True),
)


class AttachmentRecords:
    """The files and their owners."""

    def __init__(self, database: Database, clock: Clock, blobs: Blobs, *, days: float) -> None:
        self._database = database
        self._clock = clock
        self._blobs = blobs
        self._days = days

    async def put(self, owner: str, digest: str, kind: str, content: bytes) -> None:
        """Store a file of `owner`. Raises `InvalidInput` when its SHA-256 is another, `StorageFull`."""
        await self._blobs.put(digest, content)
        async with self._database.write() as connection:
            await connection.execute(delete(FILES).where(FILES.c.digest == digest, FILES.c.owner == owner))
            values = {"type": kind, "size": len(content), "used": self._clock.time()}
            await connection.execute(insert(FILES).values(digest=digest, owner=owner, **values))

    async def use(self, owner: str, digest: str) -> tuple[str, int] | None:
        """Type and size of a file of `owner`, whose retention begins anew; None when they have none such."""
        mine = (FILES.c.digest == digest) & (FILES.c.owner == owner)
        async with self._database.write() as connection:
            row = (await connection.execute(select(FILES.c.type, FILES.c.size).where(mine))).first()
            await connection.execute(update(FILES).where(mine).values(used=self._clock.time()))
        if row is None or await self._blobs.touch(digest) is None:
            return None
        return row.type, row.size

    async def content(self, digest: str) -> bytes | None:
        """The bytes; None when they are no longer kept."""
        return await self._blobs.get(digest)

    async def prune(self) -> int:
        """Forget files that were not used for the retention; how many blobs went."""
        limit = self._clock.time() - self._days * 86_400
        async with self._database.write() as connection:
            await connection.execute(delete(FILES).where(FILES.c.used < limit))
            kept = set((await connection.execute(select(FILES.c.digest).distinct())).scalars())
        return await self._blobs.prune(kept)

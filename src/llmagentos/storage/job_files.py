"""Files that jobs fetched from nodes: a row says which job, node and place, the bytes are blobs.

Fetched again, by another attempt or a later task, a file takes the place of the one before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, Float, Integer, Row, String, Table, Text, delete, func, insert, select

from llmagentos.api.job_files import MAX_FILES, MAX_JOB_BYTES, Fetched, JobFile
from llmagentos.core.clock import Clock
from llmagentos.core.errors import TooLarge
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import METADATA, Database
from llmagentos.storage.job_tables import JOBS

_NUMBER = BigInteger().with_variant(Integer, "sqlite")

FILES = Table(
    "job_files",
    METADATA,
    Column("job", _NUMBER, primary_key=True, autoincrement=False),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("node", String(64), nullable=False),
    Column("path", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("digest", String(64), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("at", Float, nullable=False, index=True),
)


class JobFiles:
    """The files of all jobs; `blobs` are theirs alone."""

    def __init__(self, database: Database, clock: Clock, blobs: Blobs, *, days: float) -> None:
        self._database = database
        self._clock = clock
        self._blobs = blobs
        self._days = days

    async def put(self, job: int, node: str, fetched: Fetched, content: bytes) -> None:
        """Keep a file of a job that is there.

        Raises `TooLarge` when that would be too much for one job, `InvalidInput` when `content` has another SHA-256.
        """
        await self._blobs.put(fetched.digest, content)
        mine = FILES.c.job == job
        same = mine & (FILES.c.node == node) & (FILES.c.path == fetched.path)
        async with self._database.write() as connection:
            await connection.execute(select(JOBS.c.id).where(JOBS.c.id == job).with_for_update())
            last = (await connection.execute(select(func.max(FILES.c.id)).where(mine))).scalar() or 0
            await connection.execute(delete(FILES).where(same))
            kept = select(func.count(), func.coalesce(func.sum(FILES.c.size), 0)).where(mine)
            count, size = (await connection.execute(kept)).one()
            if count >= MAX_FILES or size + fetched.size > MAX_JOB_BYTES:
                raise TooLarge(
                    f"job {job} has fetched {count} files of {size} bytes: at most {MAX_FILES} files and"
                    f" {MAX_JOB_BYTES} bytes are kept of one job",
                    hint="fetch an archive of what is needed, or in several jobs",
                )
            told = {"path": fetched.path, "source": fetched.source, "digest": fetched.digest, "size": fetched.size}
            await connection.execute(
                insert(FILES).values(job=job, id=last + 1, node=node, at=self._clock.time(), **told)
            )

    async def listing(self, job: int, *, node: str | None = None, limit: int = MAX_FILES) -> list[JobFile]:
        """The files of a job (and of one of its nodes), in the order in which they came."""
        query = select(FILES).where(FILES.c.job == job).order_by(FILES.c.id).limit(limit)
        if node is not None:
            query = query.where(FILES.c.node == node)
        async with self._database.read() as connection:
            return [_file(row) for row in await connection.execute(query)]

    async def find(self, job: int, file: int) -> tuple[JobFile, Path] | None:
        """A file, and where its bytes are; None when it is not there, or not any more."""
        query = select(FILES).where(FILES.c.job == job, FILES.c.id == file)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        path = await self._there(row.digest) if row is not None else None
        return None if row is None or path is None else (_file(row), path)

    async def of_digest(self, job: int, digest: str) -> Path | None:
        """Where the bytes of this job's file with this SHA-256 are; None when it has fetched none such."""
        query = select(FILES.c.id).where(FILES.c.job == job, FILES.c.digest == digest).limit(1)
        async with self._database.read() as connection:
            known = (await connection.execute(query)).first() is not None
        return await self._there(digest) if known else None

    async def _there(self, digest: str) -> Path | None:
        """None where this server lacks it: its blobs may be its own, while others work on the same database."""
        return self._blobs.path(digest) if await self._blobs.touch(digest) is not None else None

    async def prune(self) -> None:
        """Forget files after the retention, and those of jobs that are deleted."""
        limit = self._clock.time() - self._days * 86_400
        async with self._database.write() as connection:
            await connection.execute(delete(FILES).where((FILES.c.at < limit) | FILES.c.job.not_in(select(JOBS.c.id))))
        async with self._database.read() as connection:
            needed = {row.digest for row in await connection.execute(select(FILES.c.digest).distinct())}
        await self._blobs.prune(needed)


def _file(row: Row[Any]) -> JobFile:
    return JobFile(row.id, row.node, row.path, row.source, row.digest, row.size, row.at)

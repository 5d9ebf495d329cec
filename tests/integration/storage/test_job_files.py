"""Fetched files in storage: the newest of each place, bounded for one job, and no longer than they should be kept."""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from pathlib import Path

import pytest

from llmagentos.api.job_files import MAX_FILE_BYTES, MAX_JOB_BYTES, Fetched
from llmagentos.api.jobs import Inventory, JobSpec
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import TooLarge
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import Database
from llmagentos.storage.job_files import JobFiles
from llmagentos.storage.jobs import JobRecords, NewJob


def fetched(path: str, content: bytes, size: int | None = None) -> Fetched:
    return Fetched(path, "/etc/x", sha256(content).hexdigest(), len(content) if size is None else size)


def test_files_are_bounded_replaced_and_pruned(database_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        database = Database(database_url)
        await database.create_all()
        clock = ManualClock(wall=1_000_000.0)
        files = JobFiles(database, clock, Blobs(tmp_path), days=1)
        spec = JobSpec("0" * 64, "site.yml")
        new = NewJob(spec=spec, nodes=["n1"], inventory=Inventory(), local=False, by="admin:me")
        job = (await JobRecords(database, clock).create(new)).id

        await files.put(job, "n1", fetched("a", b"1"), b"1")
        await files.put(job, "n2", fetched("a", b"2"), b"2")
        await files.put(job, "n1", fetched("a", b"3"), b"3")
        assert [(each.id, each.node) for each in await files.listing(job)] == [(2, "n2"), (3, "n1")]
        found = await files.find(job, 3)
        assert found is not None
        assert (found[0].id, found[1].read_bytes()) == (3, b"3")
        assert await files.find(job, 1) is None
        assert await files.of_digest(job + 1, sha256(b"3").hexdigest()) is None

        for number in range(MAX_JOB_BYTES // MAX_FILE_BYTES - 1):
            await files.put(job, "n1", fetched(f"large{number}", b"x", MAX_FILE_BYTES), b"x")
        with pytest.raises(TooLarge, match="are kept of one job"):
            await files.put(job, "n1", fetched("more", b"x", MAX_FILE_BYTES), b"x")
        await files.put(job, "n1", fetched("large0", b"y", MAX_FILE_BYTES), b"y")  # in the place of another one

        await files.put(job + 7, "n1", fetched("of a job that is deleted", b"z"), b"z")
        clock.advance(80_000)
        await files.put(job, "n1", fetched("late", b"late"), b"late")
        clock.advance(10_000)
        await files.prune()
        assert [each.path for each in await files.listing(job)] == ["late"]
        assert await files.listing(job + 7) == []
        for blob in tmp_path.glob("??/*"):
            os.utime(blob, (0, 0))
        await files.prune()
        assert [blob.read_bytes() for blob in tmp_path.glob("??/*")] == [b"late"]
        await database.aclose()

    asyncio.run(main())

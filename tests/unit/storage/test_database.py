"""What a caller that is cancelled leaves behind: nothing."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text

from llmagentos.storage.database import Database

pytestmark = pytest.mark.anyio


async def _append(database: Database, times: int) -> None:
    async with database.write() as connection:
        for _ in range(times):
            await connection.execute(text("INSERT INTO t SELECT 1"))


async def _after_turns(scope: anyio.CancelScope, turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    scope.cancel()


@pytest.mark.parametrize("native", [False, True], ids=["scope", "task"])
async def test_a_cancelled_write_leaves_no_transaction_open(tmp_path: Path, native: bool) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    async with database.write() as connection:
        await connection.execute(text("CREATE TABLE t (n INTEGER)"))
    other = sqlite3.connect(tmp_path / "a.db", timeout=0, isolation_level=None)
    for turns in range(0, 120, 2):
        if native:
            task = asyncio.create_task(_append(database, 3))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            async with anyio.create_task_group() as group:
                with anyio.CancelScope() as scope:
                    group.start_soon(_after_turns, scope, turns)
                    await _append(database, 3)
        other.execute("BEGIN IMMEDIATE")  # "database is locked" where the write lock was left behind
        (rows,) = other.execute("SELECT count(*) FROM t").fetchone()
        other.execute("COMMIT")
        assert rows % 3 == 0
    other.close()
    await database.aclose()
    gc.collect()  # a connection that was forgotten warns here

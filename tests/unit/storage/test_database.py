"""What a caller that is cancelled leaves behind: nothing. What a database that fails is called."""

from __future__ import annotations

import asyncio
import gc
import socket
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from llmagentos.core.errors import InvalidInput
from llmagentos.storage.database import Database, StorageFull, StorageUnavailable

if TYPE_CHECKING:
    from support.postgres import Postgres

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


async def test_errors_of_the_database_are_ours_so_that_whoever_can_wait_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loops in the background and hosts of runs know `Unavailable`; a driver's own error would end them."""
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    async with database.write() as connection:
        await connection.execute(text("CREATE TABLE t (n BLOB UNIQUE)"))
    with pytest.raises(StorageFull):
        async with database.write() as connection:
            await connection.execute(text("PRAGMA max_page_count = 1"))
            await connection.execute(text("INSERT INTO t VALUES (zeroblob(1000000))"))
    with pytest.raises(IntegrityError):  # no failure of the database: some ask for it
        async with database.write() as connection:
            await connection.execute(text("INSERT INTO t VALUES (1), (1)"))
    await database.aclose()
    busy: Any = Database(f"sqlite:///{tmp_path / 'a.db'}")
    busy.engine.sync_engine.pool._timeout = 0.05  # 30 s
    async with AsyncExitStack() as stack:
        with pytest.raises(StorageUnavailable, match="no connection to the database became free"):
            for _ in range(100):
                await stack.enter_async_context(busy.read())
    await busy.aclose()
    await _unanswered("postgresql://me@127.0.0.1:1/nothing")

    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    await _unanswered("postgresql://me@nowhere.invalid/nothing")


async def _unanswered(url: str) -> None:
    database = Database(url)
    with pytest.raises(StorageUnavailable, match=r"^the database does not answer"):
        async with database.read():
            raise AssertionError("answered")
    await database.aclose()


async def test_what_postgresql_refuses_is_said(postgres: Postgres) -> None:
    url = postgres.create()
    good = Database(url)
    with pytest.raises(InvalidInput, match="NUL"):
        async with good.read() as connection:
            await connection.execute(text("SELECT CAST(:name AS TEXT)"), {"name": "a\0b"})
    await good.aclose()
    there, _, _ = url.rpartition("/")
    for wrong, why in (
        (f"{there}/other", 'database "other" does not exist'),
        (url.replace("postgres@", "me@"), '"me"'),
    ):
        database = Database(wrong)
        with pytest.raises(StorageUnavailable, match=f"^the database does not let us in: .*{why}"):
            async with database.read():
                raise AssertionError("let in")
        await database.aclose()

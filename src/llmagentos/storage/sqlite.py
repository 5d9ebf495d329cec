"""How SQLite is driven: its pragmas, and connections that a cancelled caller cannot leave half-way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from llmagentos.core.finishing import to_the_end

BUSY_MS = 10_000


def prepare(engine: AsyncEngine) -> None:
    """Every connection of `engine` writes ahead, syncs on commit, and waits for another process's write."""
    event.listen(engine.sync_engine, "connect", _pragmas)


def _pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class WholeConnection(AsyncConnection):
    """A statement that began is waited for even when the caller is cancelled.

    It runs in the driver's thread, where nothing can stop it. SQLAlchemy gives a connection up whose
    statement was cancelled, and when the cancellation comes again meanwhile (as from a cancel scope of
    anyio) the driver forgets it with the transaction open: nobody else could write after that.
    """

    async def execute(self, *args: Any, **options: Any) -> Any:
        """As SQLAlchemy's own."""
        return await to_the_end(super().execute(*args, **options))


@asynccontextmanager
async def connect(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection, given back on leaving the block; what was not committed is rolled back."""
    connection = WholeConnection(engine)
    try:
        await to_the_end(connection.start())
        yield connection
    finally:
        if connection.sync_connection is not None:
            await to_the_end(connection.close())


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction: committed on leaving the block, rolled back on an exception."""
    async with connect(engine) as connection:
        yield connection
        await to_the_end(connection.commit())

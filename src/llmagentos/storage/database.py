"""The database: SQLite (WAL) by default, PostgreSQL by URL, through SQLAlchemy Core and asyncio.

Each noun's file declares its tables on `METADATA` and a small class of queries over a `Database`.
Times are stored as REAL seconds since the epoch (UTC), structured values as JSON text.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from sqlalchemy import MetaData
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from llmagentos.core.errors import ConfigError, InvalidInput, LLMAgentOSError, Unavailable
from llmagentos.storage import sqlite

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class StorageFull(Unavailable):
    """The disk (or the database's quota) is full: nothing acknowledged is lost, nothing new is taken."""

    code = "storage_full"
    status = 507


class StorageUnavailable(Unavailable):
    """The database does not answer."""

    code = "storage_unavailable"


def as_storage_error(error: BaseException) -> LLMAgentOSError | None:
    """What a driver's error means to an operator; None when it is no error of the database's state."""
    if not isinstance(error, DBAPIError):
        return None
    text = str(error.orig)
    if "disk is full" in text or "No space left" in text or "disk I/O error" in text:
        return StorageFull(
            "the database cannot write: the disk is full",
            hint="free space on the disk of the state directory; what was acknowledged before is safe",
        )
    state = str(getattr(error.orig, "sqlstate", None) or "")  # PostgreSQL starts, stops, or has no connection left
    told = text.partition("\n")[0][:200] if state else type(error.orig).__name__
    if state == "22021":  # PostgreSQL's texts have no NUL
        return InvalidInput("a text holds a character that the database cannot store: NUL")
    if state.startswith(("28", "3D")):  # no such role, a wrong password, no such database
        return StorageUnavailable(
            f"the database does not let us in: {told.rpartition('>: ')[2]}",
            hint="correct `database` in llmagentos.yaml, or make the role and the database that it names",
        )
    gone = error.connection_invalidated or state.startswith(("08", "53", "57P"))
    if gone or isinstance(error, InterfaceError | OperationalError):
        return StorageUnavailable(f"the database does not answer: {told}", hint="`llmctl doctor`")
    return None


class Database:
    """One engine. SQLite has one writer at a time: writes queue on a lock instead of failing."""

    def __init__(self, url: str) -> None:
        self.url = _driver_url(url)
        self.engine: AsyncEngine = create_async_engine(self.url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._writer = asyncio.Lock()
        if self.is_sqlite:
            sqlite.prepare(self.engine)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for queries. Raises `StorageUnavailable` or `StorageFull` when the database fails."""
        with _ours():
            async with sqlite.connect(self.engine) if self.is_sqlite else self.engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed on leaving the block, rolled back on an exception. Raises as `read`."""
        with _ours():
            if not self.is_sqlite:
                async with self.engine.begin() as connection:
                    yield connection
                return
            async with self._writer, sqlite.transaction(self.engine) as connection:
                yield connection

    async def create_all(self) -> None:
        """Create every table that is missing (tests; `migrate` is the way in production)."""
        async with self.write() as connection:
            await connection.run_sync(METADATA.create_all)

    async def aclose(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


@contextmanager
def _ours() -> Iterator[None]:
    """A driver's errors as ours, so that whoever waits out an `Unavailable` waits out a lost database too."""
    try:
        yield
    except DBAPIError as error:
        if (known := as_storage_error(error)) is None:
            raise
        raise known from error
    except PoolTimeout as error:
        raise StorageUnavailable("no connection to the database became free", hint="`llmctl doctor`") from error
    except (ConnectionError, TimeoutError, socket.gaierror) as error:  # asyncpg's own, before there is a connection
        raise StorageUnavailable(f"the database does not answer: {error}", hint="`llmctl doctor`") from error


def _driver_url(url: str) -> str:
    parsed = make_url(url)
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
    scheme = parsed.drivername.split("+")[0]
    if scheme not in drivers:
        raise ConfigError(
            f"database {parsed.render_as_string()!r}: scheme {scheme!r} is not one of {', '.join(drivers)}"
        )
    if scheme == "sqlite" and parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    return parsed.set(drivername=drivers[scheme]).render_as_string(hide_password=False)

"""Brings the database's schema to the newest revision at start, after a backup where that is a file."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from llmagentos.core import log
from llmagentos.core.errors import OperatorError
from llmagentos.storage.database import Database

_log = log.get(__name__)


class SchemaTooNew(OperatorError):
    """The database was written by a newer version of this program."""

    code = "schema_too_new"


async def migrate(database: Database, *, backups: Path, keep: int = 5) -> str | None:
    """Upgrade when there is something to upgrade. Returns the backup's path, or None when none was needed.

    Raises `SchemaTooNew` for a revision that this version does not know.
    """
    config = alembic_config()
    script = ScriptDirectory.from_config(config)
    async with database.read() as connection:
        current = await connection.run_sync(_revision)
    head = script.get_current_head()
    if current == head:
        return None
    if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
        raise SchemaTooNew(
            f"the database has schema {current!r}, which this version does not know (its newest is {head!r})",
            hint="upgrade LLMAgentOS, or restore a backup from the state directory's backups/",
        )
    saved = _backup(database, backups, current, keep) if current is not None and database.is_sqlite else None
    async with database.write() as connection:
        await connection.run_sync(_upgrade, config)
    _log.info("schema upgraded", before=current, after=head, backup=saved)
    return saved


def alembic_config() -> Config:
    """Alembic's configuration: the revisions lie in this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection, config: Config) -> None:
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _backup(database: Database, directory: Path, revision: str, keep: int) -> str | None:
    source = make_url(database.url).database
    if not source or source == ":memory:":
        return None
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = directory / f"llmagentos-{revision}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.db"
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
    target.chmod(0o600)
    for old in sorted(directory.glob("llmagentos-*.db"), key=lambda path: path.stat().st_mtime)[:-keep]:
        old.unlink()
    return str(target)

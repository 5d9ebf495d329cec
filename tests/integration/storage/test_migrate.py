"""The schema upgrades itself, on both kinds of database, and equals the tables in the code."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from llmagentos.core.clock import SystemClock
from llmagentos.security.identity import Kind
from llmagentos.storage import migrate as module
from llmagentos.storage.database import Database
from llmagentos.storage.migrate import SchemaTooNew, migrate
from llmagentos.storage.tables import METADATA
from llmagentos.storage.tokens import TokenRecords


def _difference(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), METADATA))


def test_an_empty_database_gets_every_table(database_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        database = Database(database_url)
        assert await migrate(database, backups=tmp_path / "backups") is None
        assert await migrate(database, backups=tmp_path / "backups") is None
        async with database.read() as connection:
            assert await connection.run_sync(_difference) == []
        await database.aclose()

    asyncio.run(main())
    assert not (tmp_path / "backups").exists()


def test_a_database_of_a_newer_version_is_left_alone(database_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        database = Database(database_url)
        await migrate(database, backups=tmp_path / "backups")
        async with database.write() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(SchemaTooNew, match="9999"):
            await migrate(database, backups=tmp_path / "backups")
        await database.aclose()

    asyncio.run(main())


SECOND = """
from alembic import op
import sqlalchemy as sa
revision = "0002"
down_revision = "0001"
def upgrade() -> None:
    op.create_table("later", sa.Column("id", sa.Integer, primary_key=True))
"""


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the program one revision newer than the database is."""

    def upgrade() -> None:
        scripts = tmp_path / "migrations"
        shutil.copytree(str(module.alembic_config().get_main_option("script_location")), scripts)
        (scripts / "versions" / "0002_later.py").write_text(SECOND)
        config = Config()
        config.set_main_option("script_location", str(scripts))
        monkeypatch.setattr(module, "alembic_config", lambda: config)

    return upgrade


def test_before_an_upgrade_sqlite_is_backed_up(tmp_path: Path, next_version: Callable[[], None]) -> None:
    backups = tmp_path / "backups"

    async def main() -> None:
        database = Database(f"sqlite:///{tmp_path / 'test.db'}")
        await migrate(database, backups=backups)
        await TokenRecords(database, SystemClock()).create(Kind.VIEWER, "kept", by="test")
        next_version()
        assert await migrate(database, backups=backups) is not None
        async with database.read() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM later"))).scalar() == 0
        await database.aclose()

    asyncio.run(main())
    (saved,) = backups.glob("*.db")
    assert saved.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(saved)) as copy:
        assert copy.execute("SELECT subject FROM tokens").fetchall() == [("kept",)]
        assert copy.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]

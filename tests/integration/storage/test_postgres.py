"""What PostgreSQL says when it cannot be used for now."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from llmagentos.storage.database import Database, StorageUnavailable
from support.postgres import Postgres

pytestmark = pytest.mark.anyio


async def test_a_server_without_connections_left_is_waited_for_as_one_that_is_away(postgres: Postgres) -> None:
    """Also one that starts or stops: loops in the background and hosts of runs would end by any other error."""
    url = postgres.create()
    owner = Database(url)
    async with owner.write() as connection:
        await connection.execute(text("DROP ROLE IF EXISTS guest"))
        await connection.execute(text("CREATE ROLE guest LOGIN CONNECTION LIMIT 0"))
    guest = Database(url.replace("postgres@", "guest@"))
    with pytest.raises(StorageUnavailable, match="too many connections for role"):
        async with guest.read() as connection:
            await connection.execute(text("SELECT 1"))
    for database in (owner, guest):
        await database.aclose()

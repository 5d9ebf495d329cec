"""Writes a migration for the difference between the tables in the code and the newest revision.

`python scripts/make_migration.py "message"`; prints the file, or that there is nothing to do. Read it
before you commit it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from llmagentos.storage.migrate import alembic_config
from llmagentos.storage.tables import METADATA


def main() -> int:
    """Write the revision on an empty SQLite database that has all earlier ones."""
    config = alembic_config()
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        context = MigrationContext.configure(connection)
        if not compare_metadata(context, METADATA):
            sys.stderr.write("the migrations already make every table as it is in the code\n")
            return 0
        number = len(list((Path(str(config.get_main_option("script_location"))) / "versions").glob("*.py"))) + 1
        command.revision(config, message=" ".join(sys.argv[1:]) or "tables", autogenerate=True, rev_id=f"{number:04d}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

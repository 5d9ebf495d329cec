"""A real PostgreSQL for the session, on a Unix socket in a temporary directory; skipped where it is not installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import free_port


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


class Postgres:
    """One server; `create` makes a database in it."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self._programs = programs
        self._data = directory / "data"
        self.port = free_port()
        # PostgreSQL refuses to run as root: there it runs as the user that its package made.
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres")
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-p {self.port} -k '' -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=100"
        self._run("pg_ctl", "-D", str(self._data), "-l", str(directory / "log"), "-o", options, "-w", "start")
        self._names = 0

    def create(self) -> str:
        """A new empty database's URL."""
        self._names += 1
        name = f"test{self._names}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """Stop it at once."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        argv = [str(self._programs / program), *arguments]
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=60, **user)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's PostgreSQL; not below pytest's own directory, which only the current user may enter."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed here and could not be: scripts/test-tools.sh says why")
    with tempfile.TemporaryDirectory(prefix="llmagentos-postgres-", ignore_cleanup_errors=True) as directory:
        server = Postgres(Path(directory), programs)
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgres").create())

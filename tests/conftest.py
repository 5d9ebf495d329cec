"""Fixtures of a real system; what they are made of is in `support`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.server import ServerProcess, StartServer

if TYPE_CHECKING:  # pytest itself imports its plugins
    from support.postgres import Postgres

# How long an example takes is the machine's affair: a slow disk is not a wrong answer.
settings.register_profile("house", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

pytest_plugins = ["support.node", "support.postgres"]

# A shell ignores it for what it starts in the background, and all that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def new_database(request: pytest.FixtureRequest) -> Callable[[], str | None]:
    """Makes the database of a server: with LLMAGENTOS_TEST_DATABASE=postgresql one of PostgreSQL, else its SQLite."""
    if os.environ.get("LLMAGENTOS_TEST_DATABASE") != "postgresql":
        return lambda: None
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.create


@pytest.fixture
def start_server(tmp_path: Path, new_database: Callable[[], str | None]) -> Iterator[StartServer]:
    """Starts servers: `start_server(text of llmagentos.yaml)`; they end with the test."""
    started: list[ServerProcess] = []

    def start(config: str = "") -> ServerProcess:
        directory = tmp_path / f"server{len(started)}"
        directory.mkdir()
        server = ServerProcess(directory, config, database=new_database())
        started.append(server)
        return server.start()

    yield start
    for server in started:
        if server.process is not None and server.process.poll() is None:
            server.stop()


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    """A server with the default configuration."""
    return start_server()


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' checker of the exposition format."""
    own = Path(sys.prefix) / "tools" / "promtool"
    found = str(own) if own.exists() else shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed here and could not be: scripts/test-tools.sh says why")
    return found

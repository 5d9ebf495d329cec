"""Fixtures of a real system; what they are made of is in `support`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import ServerProcess, StartServer

pytest_plugins = ["support.node", "support.postgres"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers: `start_server(text of llmagentos.yaml, database=URL)`; they end with the test."""
    started: list[ServerProcess] = []

    def start(config: str = "", *, database: str | None = None) -> ServerProcess:
        directory = tmp_path / f"server{len(started)}"
        directory.mkdir()
        server = ServerProcess(directory, config, database=database)
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

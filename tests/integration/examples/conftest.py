"""The examples as their readers run them, on nodes of this machine."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from support.node import NodeProcess
from support.server import ServerProcess, StartServer

EXAMPLES = Path(__file__).parents[3] / "examples"
CONFIG = json.dumps({"models": {}, "node": {"enabled": False}})

StartNodes = Callable[..., Awaitable[list[NodeProcess]]]


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that other users may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="llmagentos-example-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def nodeless(start_server: StartServer) -> ServerProcess:
    """A server without models and without a node of its own."""
    return start_server(CONFIG)


@pytest.fixture
def start_nodes(nodeless: ServerProcess, tmp_path: Path) -> Iterator[StartNodes]:
    """Starts nodes of `nodeless` by their names, at the same time."""
    made: list[NodeProcess] = []

    async def start(*names: str) -> list[NodeProcess]:
        for name in names:
            (tmp_path / name).mkdir()
            made.append(NodeProcess(tmp_path / name, nodeless, name))
        return list(await asyncio.gather(*(node.join() for node in made)))

    yield start
    for node in made:
        if node.process is not None and node.process.poll() is None:
            node.stop()


@pytest.fixture
def example(nodeless: ServerProcess) -> Callable[[str], Path]:
    """Copies an example into the directory in which `llmctl` runs, to be changed there."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(EXAMPLES / name, nodeless.directory / name))

    return copy

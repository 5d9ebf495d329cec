"""A server with its two real engines."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from support.engines import CONFIG, Engines
from support.server import ServerProcess


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Engines]]:
    """One for all tests that leave it as it was."""
    server = ServerProcess(tmp_path_factory.mktemp("llm"), CONFIG).start()
    engines = Engines(server)
    engines.start()
    engines.wait()
    yield server, engines
    engines.stop()
    server.stop()


@pytest.fixture
def server(house: tuple[ServerProcess, Engines]) -> ServerProcess:
    """The server with engines."""
    return house[0]


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0, timeout=110) as made:
        yield made

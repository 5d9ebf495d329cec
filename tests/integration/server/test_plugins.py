"""An installed package adds an endpoint through its entry point, under the same rules as our own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llmagentos.core.errors import Unauthenticated
from support.server import END_S, ServerProcess

CODE = """
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Endpoint

async def hello(call):
    return {"hello": call.identity.subject}

def wire(base, parts):
    parts.endpoints.append(Endpoint("GET", "/api/v1/hello", Permission.SYSTEM_READ, hello, summary="Say hello"))
"""
FAILING = """
import asyncio

asked = asyncio.Event()

async def fail():
    await asked.wait()
    raise RuntimeError("it is over")

async def begin(call):
    asked.set()

def wire(base, parts):
    parts.background.append(fail)
    parts.endpoints.append(Endpoint("POST", "/api/v1/failures", Permission.SYSTEM_READ, begin, summary="Fail"))
"""


@pytest.fixture
def with_plugin(tmp_path: Path) -> ServerProcess:
    """A server that is not started yet, in whose environment the package `greeter` is installed."""
    packages = tmp_path / "packages"
    metadata = packages / "greeter-1.0.dist-info"
    metadata.mkdir(parents=True)
    (packages / "greeter.py").write_text(CODE)
    (packages / "broken.py").write_text("raise RuntimeError('no way')\n")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[llmagentos.server]\ngreeter = greeter:wire\nbroken = broken:wire\n")
    home = tmp_path / "home"
    home.mkdir()
    server = ServerProcess(home, "models: {}\nplugins: [greeter]\n")
    server.env["PYTHONPATH"] = str(packages)
    return server


def test_a_plugin_adds_an_endpoint_that_needs_an_identity_too(with_plugin: ServerProcess) -> None:
    server = with_plugin.start()

    async def main() -> None:
        async with server.client() as admin:
            assert await admin.get("/api/v1/hello", dict[str, str]) == {"hello": "admin"}
            assert "/api/v1/hello" in await admin.text("/api/v1/openapi.json")
        async with server.client("lao_admin_wrong") as nobody:
            with pytest.raises(Unauthenticated):
                await nobody.text("/api/v1/hello")

    try:
        asyncio.run(main())
    finally:
        server.stop()


def test_a_server_ends_when_its_work_beside_the_requests_does(with_plugin: ServerProcess) -> None:
    """It would answer, and nothing else: no lease would ever run out. Whoever watches over it starts another one."""
    (with_plugin.directory.parent / "packages" / "greeter.py").write_text(CODE + FAILING)
    server = with_plugin.start()
    assert server.process is not None

    async def main() -> None:
        async with server.client() as admin:
            await admin.post("/api/v1/failures", {}, type(None))

    try:
        asyncio.run(main())
        assert server.process.wait(END_S) == 1
    finally:
        if server.process.poll() is None:
            server.kill()
    assert "it is over" in server.log()


@pytest.mark.parametrize(("name", "says"), [("greter", "did you mean 'greeter'"), ("broken", "RuntimeError: no way")])
def test_a_plugin_that_cannot_be_loaded_is_named(with_plugin: ServerProcess, name: str, says: str) -> None:
    with_plugin.file.write_text(f"models: {{}}\nplugins: [{name}]\n")
    with pytest.raises(AssertionError, match="ended with 2"):
        with_plugin.start()
    assert name in with_plugin.log()
    assert says in with_plugin.log()

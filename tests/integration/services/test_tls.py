"""Calls to a module that shows a certificate: nobody without trust in its CA sends it a token."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.certificates import Authority
from support.server import ServerProcess, StartServer
from support.talker import Talker

MODULE = """
from llmagentos import Module, Service

class Catalogue(Service):
    def search(self, query: str) -> list[dict]:
        return [{{"id": "K1", "text": "The kettle costs 39.90 EUR."}}]

module = Module("catalogue", certificate={cert!r}, key={key!r})
module.register_service(Catalogue)
module.start()
"""
AGENT = "{kind: Agent, name: support, model: talker, ground: catalogue.search}"
CALL = "from llmagentos import ServiceClient\nprint(ServiceClient('catalogue').search(query='kettle')[0]['id'])"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def _python(server: ServerProcess, source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source],
        env=server.env,
        cwd=server.directory,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("trusted", [True, False])
def test_callers_of_a_module_verify_it(
    start_server: StartServer, start_module_of, authority: Authority, trusted: bool
) -> None:
    cert, key = authority.server("127.0.0.1")
    with Talker(lambda _: "It costs 39.90 EUR.").running() as talker:
        server = start_server(f"{talker.config}\nserver: {{trust: {authority.path}}}\n" if trusted else talker.config)
        if trusted:
            server.env["LLMAGENTOS_CA"] = str(authority.path)
        module = start_module_of(server, MODULE.format(cert=str(cert), key=str(key)))
        (found,) = json.loads(server.llmctl("services", "--json").stdout)
        assert found["address"].startswith("https://127.0.0.1:")
        called = server.llmctl("call", "catalogue", "search", "query=kettle")
        program = _python(server, CALL)
        (server.directory / "support.yaml").write_text(AGENT)
        assert server.llmctl("apply", "-f", "support.yaml").returncode == 0
        asked = server.llmctl("ask", "support", "What does the kettle cost?")
        if trusted:
            assert json.loads(called.stdout)[0]["id"] == "K1"
            assert program.stdout == "K1\n", program.stderr
            assert "39.90" in asked.stdout, asked.stderr
        else:
            for done in (called, program, asked):
                assert done.returncode != 0
                assert "certificate verify failed" in done.stderr, done.stderr
        assert module.stop() == 0

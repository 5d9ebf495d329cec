"""A server whose model says what the test says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.server import ServerProcess, StartServer
from support.talker import Talker

MODULE = """
import sys, time
from pathlib import Path
from llmagentos import Agent, Module, Service, tool
from llmagentos.services.service import idempotent

NOTES = Path(sys.argv[1])

def note(what):
    with NOTES.open("a") as file:
        file.write(what + "\\n")

class ShopService(Service):
    @idempotent
    def search(self, query: str) -> list[dict[str, str]]:
        "Products."
        note(f"search {query}")
        if "bicycle" in query:
            return []
        return [{"name": "Blue Kettle", "price": "39.90 EUR"}, {"name": "Knife", "price": "79.00 EUR"}]

    def slow(self, query: str) -> str:
        "Takes its time."
        note("slow begins")
        deadline = time.monotonic() + 60
        while not Path(sys.argv[1] + ".go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        note("slow ends")
        return "slow result"

@tool(idempotent=True)
def double(number: int) -> int:
    "Twice the number."
    note(f"double {number}")
    return 2 * number

@tool(idempotent=True)
def wait(seconds: int) -> str:
    "Waits for the test."
    note("wait begins")
    deadline = time.monotonic() + 60
    while not Path(sys.argv[1] + ".go").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return "waited"

module = Module("shop")
module.register_service(ShopService, name="shop")
module.register_agent(Agent("sums", instructions="You do sums.", tools=[double, wait, "shop.search"]))
module.start()
"""

GROUNDED = """
kind: Agent
name: support
model: talker
instructions: You help.
ground: shop.search
"""


class ModuleProcess:
    """The shop as a process of its own; what it was asked to do is in `notes`."""

    def __init__(self, server: ServerProcess, directory: Path) -> None:
        self._server = server
        self._directory = directory
        self._program = directory / "shop.py"
        self._program.write_text(MODULE)
        self._notes = directory / "notes"
        self._notes.touch()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start one (more) and wait until it is registered, and its agents are known: they are with its first claim."""
        before = self.log().count('"registered"')
        with (self._directory / "module.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, self._program, self._notes],
                env=self._server.env,
                cwd=self._directory,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        until(lambda: self.log().count('"registered"') > before, self.log)
        until(self._agents_are_known, self.log)
        return process

    def _agents_are_known(self) -> bool:
        headers = {"Authorization": f"Bearer {self._server.token}"}
        request = urllib.request.Request(f"{self._server.url}/api/v1/agents", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as listed:
            return any(agent["name"] == "sums" and agent["online"] for agent in json.load(listed))

    def go(self) -> None:
        """Let the slow things end."""
        Path(f"{self._notes}.go").touch()

    @property
    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines()

    def log(self) -> str:
        file = self._directory / "module.log"
        return file.read_text() if file.exists() else ""

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)


def until(condition: Callable[[], object], why: Callable[[], str] = lambda: "", *, within: float = 60.0) -> None:
    """Wait for `condition()`."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s\n{why()}"
        time.sleep(0.02)


@pytest.fixture
def talker() -> Iterator[Talker]:
    with Talker(lambda _: "The kettle costs 39.90 EUR.").running() as running:
        yield running


@pytest.fixture
def house(start_server: StartServer, talker: Talker) -> ServerProcess:
    return start_server(talker.config)


@pytest.fixture
def shop(house: ServerProcess, tmp_path: Path) -> Iterator[ModuleProcess]:
    module = ModuleProcess(house, tmp_path)
    module.start()
    yield module
    module.stop()


@pytest.fixture
def support(house: ServerProcess, shop: ModuleProcess) -> str:
    """The agent `support`, applied."""
    file = house.directory / "support.yaml"
    file.write_text(GROUNDED)
    done = house.llmctl("apply", "-f", str(file))
    assert done.returncode == 0, done.stderr
    return "support"


@pytest.fixture
def friend(house: ServerProcess) -> str:
    """An agent without tools, applied."""
    (house.directory / "friend.yaml").write_text("{kind: Agent, name: friend, model: talker}")
    assert house.llmctl("apply", "-f", "friend.yaml").returncode == 0
    return "friend"

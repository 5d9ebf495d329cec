"""install.sh for real: a machine becomes a node, is upgraded, a broken version is taken back, all is removed again."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from llmagentos.api import nodes
from llmagentos.fleet import package
from support.server import ServerProcess

SCRIPT = files("llmagentos.server").joinpath("install", "install.sh")
SHELL = shutil.which("dash") or "/bin/sh"


class Machine:
    """A place for a node of its own: a prefix, a state directory, and the script as curl would get it."""

    def __init__(self, root: Path, server: ServerProcess) -> None:
        self.server = server
        self.prefix, self.state = root / "opt", root / "state"

    def script(self, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
        with urllib.request.urlopen(f"{self.server.url}/install.sh") as answer:
            text = answer.read().decode()
        places = ["--prefix", str(self.prefix), "--state", str(self.state), "--no-service", "--python", sys.executable]
        return subprocess.run(
            [SHELL, "-s", "--", *places, *arguments],
            input=text,
            env={**os.environ, "LLMAGENTOS_JOIN_TOKEN": token},
            capture_output=True,
            text=True,
            timeout=100,
        )

    async def runs(self, name: str, version: str) -> None:
        deadline = time.monotonic() + 60
        async with self.server.client() as admin:
            while [(n.name, n.state, n.version) for n in await nodes.listing(admin)] != [(name, "ready", version)]:
                assert time.monotonic() < deadline, (self.prefix / "launch.log").read_text()
                await asyncio.sleep(0.1)


@pytest.fixture
def machine(server: ServerProcess, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "machine", server)
    yield made
    made.script("--uninstall", "--purge")


def variant(version: str, change: Callable[[bytes], bytes] = bytes) -> bytes:
    """Our own wheel as another version, with another node agent."""
    own, content = package.build(), {}
    with zipfile.ZipFile(io.BytesIO(own.content)) as wheel:
        for name in wheel.namelist():
            if not name.endswith("/RECORD"):
                content[name.replace(f"-{own.version}.dist-info", f"-{version}.dist-info")] = wheel.read(name)
    info = f"llmagentos-{version}.dist-info/METADATA"
    content[info] = content[info].replace(f"Version: {own.version}".encode(), f"Version: {version}".encode())
    agent = "llmagentos/fleet/node/agent.py"
    content[agent] = change(content[agent])
    return package.pack(content, version).content


def broken(agent: bytes) -> bytes:
    return agent.replace(b"    directory = NodeDirectory(", b"    raise SystemExit('this one is broken')\n    _ = (", 1)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    "LLMAGENTOS_TEST_INSTALL" not in os.environ, reason="half a minute and more: LLMAGENTOS_TEST_INSTALL=1"
)
def test_a_machine_becomes_a_node_is_upgraded_and_cleaned_up(machine: Machine, tmp_path: Path) -> None:
    server = machine.server
    token = server.llmctl("token", "create", "web1", "--kind", "join", "--uses", "2").stdout.strip()
    done = machine.script("--name", "web1", token=token)
    assert done.returncode == 0, done.stderr
    asyncio.run(machine.runs("web1", package.build().version))
    again = machine.script("--name", "web1", token=token)
    assert "is installed already" in again.stderr
    assert "is a node already" in again.stderr
    (tmp_path / "good.whl").write_bytes(variant("9.1"))
    (tmp_path / "bad.whl").write_bytes(variant("9.2", broken))
    good = server.llmctl("node", "update", "web1", "--wheel", str(tmp_path / "good.whl"))
    assert (good.returncode, good.stderr) == (0, "web1 becomes 9.1\nweb1 runs 9.1\n")
    bad = server.llmctl("node", "update", "web1", "--wheel", str(tmp_path / "bad.whl"))
    assert bad.returncode == 1
    assert "web1 is back on the version it had" in bad.stderr
    assert "this one is broken" in bad.stderr
    asyncio.run(machine.runs("web1", "9.1"))
    gone = machine.script("--uninstall", "--purge")
    assert gone.returncode == 0, gone.stderr
    assert not machine.prefix.exists()
    assert not machine.state.exists()


def test_without_the_right_token_nothing_is_installed(machine: Machine) -> None:
    for token, said in (("", "a join token is needed"), ("lao_viewer_x", "no join token"), ("lao_join_wrong", "401")):
        done = machine.script(token=token)
        assert done.returncode == 1
        assert said in done.stderr
        assert not machine.prefix.exists()


def test_the_script_holds_nothing_of_the_request_but_a_plain_host(server: ServerProcess) -> None:
    def fetch(host: str) -> str:
        request = urllib.request.Request(f"{server.url}/install.sh", headers={"Host": host})
        with urllib.request.urlopen(request) as answer:
            text: str = answer.read().decode()
        return next(line for line in text.splitlines() if line.startswith("SERVER="))

    assert fetch("box.example:7080") == "SERVER='http://box.example:7080'"
    assert fetch("[::1]:7080") == "SERVER='http://[::1]:7080'"
    for forged in ("x';touch /tmp/owned;'", "$(id)", "a b", "x`id`", "@"):
        assert fetch(forged) == "SERVER=''"


def test_shellcheck_has_nothing_to_say() -> None:
    program = shutil.which("shellcheck")
    if program is None:
        assert subprocess.run([SHELL, "-n"], input=SCRIPT.read_bytes()).returncode == 0
        return
    done = subprocess.run([program, "-s", "sh", "-"], input=SCRIPT.read_text(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

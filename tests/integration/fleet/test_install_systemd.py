"""install.sh where systemd runs: with a systemctl that notes what it is told, and a unit that systemd itself reads.

What takes minutes (the virtual environment) stands there already; the node agent that the unit starts is a real one.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmagentos.api import nodes
from llmagentos.fleet import package
from support.server import ServerProcess

SHELL = shutil.which("dash") or "/bin/sh"
UNIT = "llmagentos-node.service"
PATIENCE_S = 60.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


class Machine:
    """A machine with systemd, as far as the script can see."""

    def __init__(self, root: Path, server: ServerProcess) -> None:
        self.root, self.server = root, server
        self.prefix, self.state, self.units = root / "opt", root / "state", root / "units"
        self.told = root / "told"
        own = package.build()
        self.version = f"{own.version}-{own.digest[:12]}"
        for directory in (self.units, root / "running", root / "bin"):
            directory.mkdir(parents=True)
        self.program("systemctl", f'echo "$*" >>"{self.told}"')
        self.program("id", "echo 0")
        self.installed(self.version)
        self.agent: subprocess.Popen[bytes] | None = None

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def installed(self, version: str) -> None:
        python = self.prefix / "versions" / version / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        (python.parent.parent / ".complete").touch()
        (self.prefix / ".llmagentos").touch()

    def script(
        self, *arguments: str, token: str = "", cwd: Path | None = None, prefix: str = ""
    ) -> subprocess.CompletedProcess[str]:
        with urllib.request.urlopen(f"{self.server.url}/install.sh") as answer:
            text = answer.read().decode()
        text = text.replace("/etc/systemd/system", str(self.units)).replace(
            "/run/systemd/system", str(self.root / "running")
        )
        places = ["--prefix", prefix or str(self.prefix), "--state", str(self.state), "--python", sys.executable]
        environ = {**os.environ, "LLMAGENTOS_JOIN_TOKEN": token, "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"}
        return subprocess.run(
            [SHELL, "-s", "--", *places, *arguments],
            input=text,
            env=environ,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def said(self) -> list[str]:
        found = self.told.read_text().splitlines() if self.told.exists() else []
        self.told.unlink(missing_ok=True)
        return found

    def command(self) -> list[str]:
        [line] = [x for x in (self.units / UNIT).read_text().splitlines() if x.startswith("ExecStart=")]
        return shlex.split(line.removeprefix("ExecStart="))

    def launcher(self) -> int:
        """The plain process that the script started."""
        return int((self.prefix / "launch.pid").read_text())

    def token(self) -> str:
        return self.server.llmctl("token", "create", "web1", "--kind", "join").stdout.strip()

    def comes_up(self) -> bool:
        async def listing() -> list[tuple[str, str]]:
            async with self.server.client() as admin:
                return [(node.name, node.state) for node in await nodes.listing(admin)]

        return asyncio.run(listing()) == [("web1", "ready")]


def alive(pid: int) -> bool:
    try:
        return b"launch.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # before it is opened, or before it is read
        return False


@pytest.fixture
def machine(server: ServerProcess, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "machine", server)
    yield made
    if (made.prefix / "launch.pid").exists() and alive(made.launcher()):
        os.kill(made.launcher(), signal.SIGTERM)
        until(lambda: not alive(made.launcher()))
    if made.agent is not None:
        made.agent.terminate()
        made.agent.wait(PATIENCE_S)


def test_a_unit_is_written_enabled_run_again_and_removed(machine: Machine) -> None:
    done = machine.script("--name", "web1", token=machine.token())
    assert done.returncode == 0, done.stderr
    started = ["daemon-reload", f"enable --quiet {UNIT}", f"restart {UNIT}"]
    assert machine.said() == started
    unit = (machine.units / UNIT).read_text()
    assert (machine.units / UNIT).stat().st_mode & 0o777 == 0o644
    assert not (machine.prefix / "launch.pid").exists(), "no second one beside systemd's"

    machine.agent = subprocess.Popen(machine.command(), stderr=subprocess.DEVNULL)
    until(machine.comes_up)

    again = machine.script("--name", "web1", token=machine.token())
    assert again.returncode == 0, again.stderr
    assert "is a node already" in again.stderr
    assert ((machine.units / UNIT).read_text(), machine.said()) == (unit, started)

    gone = machine.script("--uninstall")
    assert gone.returncode == 0, gone.stderr
    assert machine.said() == [f"disable --now --quiet {UNIT}", "daemon-reload"]
    assert not (machine.units / UNIT).exists()
    assert not machine.prefix.exists()
    assert (machine.state / "identity.json").exists(), "only --purge takes the identity"
    assert machine.script("--uninstall", "--purge").returncode == 0
    assert not machine.state.exists()
    assert machine.said() == []


def test_systemd_reads_the_unit(machine: Machine) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    assert machine.script("--name", "web1", "--metrics", "[::1]:0", token=machine.token()).returncode == 0
    checked = subprocess.run([program, "verify", str(machine.units / UNIT)], capture_output=True, text=True)
    mine = [line for line in checked.stderr.splitlines() if UNIT in line]
    assert (checked.returncode, mine) == (0, []), checked.stderr


def test_another_version_is_switched_to_and_what_it_was_trying_is_dropped(machine: Machine) -> None:
    machine.installed("older")
    (machine.prefix / "current").symlink_to("versions/older")
    (machine.prefix / "trial.json").write_text('{"id": "older"}')
    (machine.prefix / "outcome.json").write_text("{}")
    assert machine.script("--name", "web1", token=machine.token()).returncode == 0
    assert (machine.prefix / "current").readlink() == Path("versions") / machine.version
    assert not (machine.prefix / "trial.json").exists()
    assert not (machine.prefix / "outcome.json").exists()
    assert f"restart {UNIT}" in machine.said()


def test_there_is_one_node_agent_whichever_way_it_is_started(machine: Machine) -> None:
    assert machine.script("--name", "web1", "--no-service", token=machine.token()).returncode == 0
    plain = machine.launcher()
    until(machine.comes_up)
    assert machine.script(token=machine.token()).returncode == 0
    until(lambda: not alive(plain))
    assert (machine.units / UNIT).exists()
    machine.said()
    assert machine.script("--no-service", token=machine.token()).returncode == 0
    assert machine.said() == [f"disable --now --quiet {UNIT}", "daemon-reload"]
    assert not (machine.units / UNIT).exists()
    assert alive(machine.launcher())


def test_another_ones_unit_is_left_alone(machine: Machine) -> None:
    (machine.units / UNIT).write_text("[Service]\nExecStart=/usr/bin/python3 /opt/other/launch.py /opt/other\n")
    assert machine.script("--uninstall").returncode == 0
    assert (machine.units / UNIT).exists()
    assert machine.said() == []


def test_what_a_unit_could_misread_is_refused(machine: Machine, tmp_path: Path) -> None:
    odd = tmp_path / "with blank"
    odd.mkdir()
    (tmp_path / "no.pem").write_text("nothing")
    for given, said in (
        ({"cwd": odd, "prefix": "opt"}, "only letters"),
        ({"prefix": "/opt/%h"}, "only letters"),
    ):
        done = machine.script(token=machine.token(), **given)  # type: ignore[arg-type]
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    for arguments, said in (
        (["--metrics", "127.0.0.1:0 --state /"], "no HOST:PORT"),
        (["--ca", str(tmp_path / "gone.pem")], "cannot be read"),
        (["--ca", str(tmp_path / "no.pem")], "no certificate"),
        (["--ca", str(odd / "ca.pem")], "only letters"),
    ):
        done = machine.script(*arguments, token=machine.token())
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert not (machine.units / UNIT).exists()
    assert machine.said() == []

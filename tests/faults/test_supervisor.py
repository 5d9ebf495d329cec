"""`llmctl up`: who holds a state directory, what dies is restarted, what is stopped leaves nothing over."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from llmagentos.core.state import StateDirectory
from support.system import System, wait_for

ALONE = "models: {}\nnode: {enabled: false}\n"
"""No engines, no node: the supervisor and the server only."""


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Callable[[str], System]]:
    made: list[System] = []

    def make(config: str = ALONE) -> System:
        made.append(System(tmp_path, config))
        return made[0]

    yield make
    for one in made:
        one.llmctl("down")


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_up_tells_where_it_is_and_down_leaves_nothing(system: Callable[..., System]) -> None:
    here = system()
    up = here.llmctl("up", "--detach")
    assert up.returncode == 0, up.stderr
    assert "Admin token:" in up.stdout
    assert "lao_admin_" in up.stdout
    pids, supervisor = [process["pid"] for process in here.status()["processes"]], here.supervisor()
    assert here.llmctl("down").returncode == 0
    assert all(gone(pid) for pid in pids)
    wait_for(lambda: gone(supervisor))  # it lets go of the state at its very end
    ends = [child.last_exit for child in StateDirectory(here.state).recorded()]
    assert ends == ["ended with exit code 0"] * len(pids), "they were asked to end, and that was enough"
    again = here.llmctl("up", "--detach")
    assert again.returncode == 0
    assert "lao_admin_" not in again.stdout  # shown once
    assert here.state.stat().st_mode & 0o777 == 0o700
    assert "lao_" not in "".join(path.read_text() for path in (here.state / "logs").iterdir())


def test_up_that_is_interrupted_before_it_is_ready_leaves_nothing(system: Callable[..., System]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a database that never answers: it will not be ready
        here = system(ALONE + f"database: postgresql://somebody@127.0.0.1:{silent.getsockname()[1]}/x\n")
        with here.start("up", "--detach") as up:
            wait_for(lambda: here.status()["running"])
            up.send_signal(signal.SIGINT)
            told, _ = up.communicate(timeout=100)
            assert up.returncode == 130, told
        assert here.status()["running"] is False


def test_what_was_started_stays_when_nobody_waits_for_it_any_more(system: Callable[..., System]) -> None:
    here = system()
    with here.start("up", "--detach") as up:
        wait_for(lambda: here.status()["running"])
        up.kill()
    log = here.state / "logs" / "server.log"
    wait_for(lambda: log.exists() and "login-links" in log.read_text())  # the last step but that of telling
    supervisor = here.supervisor()
    os.kill(here.process("server")["pid"], signal.SIGKILL)
    wait_for(lambda: here.process("server")["restarts"] == 1 and here.llmctl("status").returncode == 0)
    assert here.supervisor() == supervisor


def test_a_second_up_says_who_holds_the_state(system: Callable[..., System]) -> None:
    here = system()
    assert here.llmctl("up", "--detach").returncode == 0
    for second in (here.llmctl("up"), here.llmctl("up", "--detach"), here.llmctl("server")):
        assert second.returncode == 1
        assert str(here.supervisor()) in second.stderr


def test_a_taken_port_is_named_and_nothing_stays(system: Callable[..., System]) -> None:
    here = system()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        here.env["LLMAGENTOS_SERVER_ADDRESS"] = f"127.0.0.1:{taken.getsockname()[1]}"
        for arguments in (["up"], ["up", "--detach"]):
            done = here.llmctl(*arguments)
            assert done.returncode != 0
            assert str(taken.getsockname()[1]) in done.stderr
            assert "hint:" in done.stderr
    assert here.status()["running"] is False


def test_this_machine_joins_again_where_the_database_does_not_know_it(system: Callable[..., System]) -> None:
    """Whoever goes from SQLite to PostgreSQL begins with an empty one."""
    here = system("models: {}\nnode: {name: here}\n")
    for database in ("first", "second"):
        here.env["LLMAGENTOS_DATABASE"] = f"sqlite:///{here.directory / database}.db"
        up = here.llmctl("up", "--detach")
        assert up.returncode == 0, up.stderr
        wait_for(lambda: [node["name"] for node in json.loads(here.llmctl("nodes", "--json").stdout)] == ["here"])
        assert here.process("node")["restarts"] == 0
        assert here.llmctl("down").returncode == 0


def test_a_killed_server_is_started_again(system: Callable[..., System]) -> None:
    here = system()
    assert here.llmctl("up", "--detach").returncode == 0
    before = here.process("server")["pid"]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: here.process("server")["pid"] not in (None, before))
    assert here.process("server")["restarts"] == 1
    wait_for(lambda: here.llmctl("status").returncode == 0)
    log = (here.state / "logs" / "up.log").read_text()
    assert "server was ended by SIGKILL; starting it again in" in log


def test_killing_the_supervisor_takes_its_children_along(system: Callable[..., System]) -> None:
    here = system()
    assert here.llmctl("up", "--detach").returncode == 0
    server = here.process("server")["pid"]
    os.kill(here.supervisor(), signal.SIGKILL)
    wait_for(lambda: gone(server))
    assert here.status()["running"] is False
    assert here.llmctl("up", "--detach").returncode == 0
    assert here.process("server")["pid"] != server


def test_what_runs_goes_on_while_nothing_can_be_written_down(system: Callable[..., System]) -> None:
    """As on a full disk, which nobody has to fill for this: a directory cannot be written to either."""
    here = system()
    assert here.llmctl("up", "--detach").returncode == 0
    supervisor, server = here.supervisor(), here.process("server")["pid"]
    log, noted = here.state / "logs" / "up.log", here.state / "run" / "children.new"
    log.rename(log.with_suffix(".old"))
    log.mkdir()
    noted.mkdir()
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: gone(server))
    wait_for(lambda: here.llmctl("status").returncode == 0)
    noted.rmdir()
    wait_for(lambda: here.process("server")["pid"] != server)
    assert here.process("server")["restarts"] == 1
    assert here.supervisor() == supervisor


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(system: Callable[..., System], number: signal.Signals) -> None:
    here = system()
    up = here.start("up")
    wait_for(lambda: here.llmctl("status").returncode == 0)
    server = here.process("server")["pid"]
    up.send_signal(number)
    output, _ = up.communicate(timeout=100)
    assert up.returncode == 0, output
    assert gone(server)
    assert "stopped after" in output


def test_a_state_directory_open_to_others_is_refused(system: Callable[..., System]) -> None:
    here = system()
    here.state.mkdir(mode=0o755)
    here.state.chmod(0o755)
    done = here.llmctl("up")
    assert done.returncode == 2
    assert "chmod 700" in done.stderr


def test_another_address_needs_tls(system: Callable[..., System]) -> None:
    here = system(ALONE + "server: {address: '0.0.0.0:7080'}\n")
    del here.env["LLMAGENTOS_SERVER_ADDRESS"]
    done = here.llmctl("up")
    assert done.returncode == 2
    assert "tls" in done.stderr


def test_with_tls_everything_speaks_tls(system: Callable[..., System], tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    here = system(ALONE + "server: {tls: {cert: cert.pem, key: key.pem}}\n")
    up = here.llmctl("up", "--detach")
    assert up.returncode == 0, up.stderr
    assert "https://127.0.0.1" in up.stdout
    assert here.llmctl("token", "list").returncode == 0


def test_the_doctor_sees_a_model_that_is_away(system: Callable[..., System]) -> None:
    here = system("models: {hosted: {engine: openai, url: 'http://127.0.0.1:9/v1'}}\nnode: {enabled: false}\n")
    assert here.llmctl("up", "--detach").returncode == 0
    done = here.llmctl("doctor", "--json")
    assert done.returncode == 1
    failed = [finding for finding in json.loads(done.stdout) if finding["verdict"] == "fail"]
    assert [finding["check"] for finding in failed] == ["engine"]
    assert "hosted (openai) is unreachable" in failed[0]["message"]

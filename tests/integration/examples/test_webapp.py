"""A web application and its database: deployed, upgraded in batches, and rolled back when its health gate fails."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

import pytest

from support.server import free_port

pytestmark = pytest.mark.anyio

NODES = ("web1", "web2", "web3")
GATE = "http://{{ ansible_host }}:{{ app_port }}/health"


@pytest.fixture
def database(root):
    """Where the playbook puts its cluster; ended with the test."""
    if not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("psql") is None:
        pytest.skip("Debian's PostgreSQL is not installed here and could not be: scripts/test-tools.sh says why")
    yield root / "postgresql"
    pid = root / "postgresql" / "data" / "postmaster.pid"
    if pid.exists():
        os.kill(int(pid.read_text().split()[0]), signal.SIGINT)
        deadline = time.monotonic() + 30
        while pid.exists() and time.monotonic() < deadline:
            time.sleep(0.05)


class Visitor(threading.Thread):
    """Visits the pages until it is stopped; `lost` is what a node did not answer well."""

    def __init__(self, ports) -> None:
        super().__init__(daemon=True)
        self.lost = dict.fromkeys(ports, 0)
        self.seen = {port: [] for port in ports}
        self.nobody = 0
        self.rounds = 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.1):
            answers = {port: get(port, "/") for port in self.lost}
            for port, (status, said) in answers.items():
                self.lost[port] += status != 200
                release = said.get("release")
                if release is not None and self.seen[port][-1:] != [release]:
                    self.seen[port].append(release)
            self.nobody += all(status != 200 for status, _ in answers.values())
            self.rounds += 1

    def go_round(self, times: int) -> None:
        """Wait until all pages have been visited so many times more."""
        wanted, deadline = self.rounds + times, time.monotonic() + 60
        while self.rounds < wanted:
            assert time.monotonic() < deadline, "the visitor does not come round"
            time.sleep(0.05)

    def __enter__(self) -> Visitor:
        self.start()
        self.go_round(1)
        return self

    def __exit__(self, *_: object) -> None:
        self.go_round(2)  # the one that is under way may have begun before what happened last
        self._done.set()
        self.join(60)


def get(port, path):
    """Status and JSON; status 0 when nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=15) as found:
            return found.status, json.load(found)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except (OSError, HTTPException, ValueError):  # among them an answer that was cut off
        return 0, {}


async def test_upgraded_in_batches_and_rolled_back_when_the_gate_fails(nodeless, start_nodes, example, root, database):
    await start_nodes(*NODES)
    ports = [free_port() for _ in NODES]
    directory = example("webapp")
    inventory = (directory / "hosts.ini").read_text()
    for number, port in enumerate(ports, 1):
        inventory = inventory.replace(f"app_port=808{number}", f"app_port={port}")
    (directory / "hosts.ini").write_text(inventory)

    async def run(playbook, *options):
        base = ["run", f"webapp/{playbook}", "-i", "webapp/hosts.ini", "-e", f"app_root={root}"]
        return await asyncio.to_thread(nodeless.llmctl, *base, "-e", f"database_port={db_port}", *options)

    async def upgrade(release, *options):
        rolling = ["--batch", "1,100%", "--gate", GATE, "--max-failures", "0", "--rollback", "rollback.yml"]
        return await run("deploy.yml", "-e", f"release={release}", *rolling, *options)

    db_port = free_port()
    for playbook in ("database.yml", "deploy.yml"):
        done = await run(playbook)
        assert done.returncode == 0, done.stdout + done.stderr
    done = await run("database.yml")
    assert "changed=0" in done.stdout, done.stdout
    assert [get(port, "/release")[1]["release"] for port in ports] == ["1", "1", "1"]
    assert get(ports[0], "/")[1]["page"] == "1 visits"

    with Visitor(ports) as visitor:
        done = await upgrade("2")
        assert done.returncode == 0, done.stdout + done.stderr
    assert set(map(tuple, visitor.seen.values())) == {("1", "2")}
    assert visitor.nobody == 0, "some node always answered"

    with Visitor(ports) as visitor:
        done = await upgrade("3", "--gate-timeout", "2s")
        assert done.returncode == 2, done.stdout + done.stderr
    canary, *others = ports
    assert [visitor.lost[port] for port in others] == [0, 0]
    assert [visitor.seen[port] for port in others] == [["2"], ["2"]]
    assert visitor.lost[canary] > 0
    assert [get(port, "/health")[0] for port in ports] == [200, 200, 200]
    assert [get(port, "/release")[1]["release"] for port in ports] == ["2", "2", "2"]
    said = (await asyncio.to_thread(nodeless.llmctl, "job", "show", "5")).stdout
    assert "answered 503" in said
    assert "on 3 nodes" in get(canary, "/")[1]["page"]

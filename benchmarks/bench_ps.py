"""`llmctl ps` with 10,000 runs in the table, from the shell's point of view: start, ask, print. Goal: 300 ms."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from sqlalchemy import insert

from llmagentos.agents import log as runlog
from llmagentos.api.runs import Claimed, Created, Killed, RunEvent
from llmagentos.core.ids import new_id
from llmagentos.storage.database import Database
from llmagentos.storage.runs import EVENTS
from llmagentos.storage.runs import RUNS as RUNS_TABLE

RUNS, ROUNDS = 10_000, 5
GOAL_MS = 300.0


async def fill(database: Path) -> None:
    """Half of the runs go on, half have ended. In one transaction, unlike real ones: only reading is measured."""
    storage, now = Database(f"sqlite:///{database}"), time.time()
    rows, events = [], []
    for number in range(RUNS):
        run, at, nice = new_id(), now - RUNS + number, number % 40 - 20
        asked = Created("support", 1, "m", "What does the kettle cost? " * 4, "admin:me", priority=nice)
        log = [RunEvent(1, at, asked), RunEvent(2, at, Claimed("h", 1) if number % 2 else Killed("me"))]
        summary = runlog.summary(run, runlog.fold(log))
        shown = {"summary": msgspec.json.encode(summary).decode(), "priority": nice, "tokens": number}
        row: dict[str, object] = {
            "id": run,
            "agent": "support",
            "host": "module:none",
            "state": summary.state.value,
            "seq": 2,
        }
        row |= {"created": at, "created_by": summary.created_by, "ended": summary.ended}
        rows.append(row | shown | {"fence": 1, "holder": "h"})
        events += [
            {"run": run, "seq": event.seq, "at": at, "data": msgspec.json.encode(event.data).decode()} for event in log
        ]
    async with storage.write() as connection:
        await connection.execute(insert(RUNS_TABLE), rows)
        await connection.execute(insert(EVENTS), events)
    await storage.aclose()


def main() -> None:
    """Fill a database, start a server on it, and list."""
    with tempfile.TemporaryDirectory() as directory:
        env = os.environ | {
            "LLMAGENTOS_STATE": f"{directory}/state",
            "LLMAGENTOS_SERVER_ADDRESS": f"127.0.0.1:{_free_port()}",
            "LLMAGENTOS_LANG": "en",
        }
        server = _serve(directory, env)
        server.terminate()
        server.wait()
        asyncio.run(fill(Path(directory) / "state" / "llmagentos.db"))
        server = _serve(directory, env)
        try:
            base = _median(env, ["--version"])
            for options in ([], ["-a"], ["--sort", "priority"], ["-a", "--sort", "tokens"], ["-a", "-n", "1000"]):
                took = _median(env, ["ps", *options])
                told = "met" if took <= GOAL_MS else "MISSED"
                shown = " ".join(["ps", *options])
                print(f"llmctl {shown:24} {took:5.0f} ms, {took / base:.1f} x llmctl --version  (goal {told})")
        finally:
            server.terminate()
            server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(directory: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
    server = subprocess.Popen(
        [sys.executable, "-m", "llmagentos.server"], cwd=directory, env=env, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while subprocess.run(_llmctl("ps"), env=env, cwd=directory, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            server.kill()
            sys.exit("the server does not answer")
        time.sleep(0.1)
    return server


def _llmctl(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "llmagentos.cli.main", *arguments]


def _median(env: dict[str, str], arguments: list[str]) -> float:
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        subprocess.run(_llmctl(*arguments), env=env, capture_output=True, check=True)
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


if __name__ == "__main__":
    main()

"""Server and node agent killed while jobs try again, hold locks and roll out: each attempt runs once, in its turn."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil

from llmagentos.api import job_control, jobs
from llmagentos.api.job_control import Retries, Rollout
from support.node import NodeProcess, ended, submit
from support.server import ServerProcess, eventually


def play(mark: Path, ending: str, seconds: float = 0.6) -> str:
    return (
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        f"    - shell: 'echo begun >> {mark}; sleep {seconds}; echo ended >> {mark}; {ending}'\n"
    )


def lines(mark: Path) -> list[str]:
    return mark.read_text().split() if mark.exists() else []


def test_every_attempt_runs_once_though_all_are_killed(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    mark, other = tmp_path / "mark", tmp_path / "other"
    ending = f"test $(grep -c ended {mark}) -ge 3"  # the third attempt succeeds

    async def main() -> None:
        async with server.client() as client:
            rule = Retries(3, ["failed"], 0.3)
            first = await submit(client, {"site.yml": play(mark, ending)}, retries=rule, lock="x")
            await eventually(lambda: len(lines(mark)) >= 1)
            second = await submit(client, {"site.yml": play(other, "true", 0)}, lock="x")
        node.kill()
        server.kill()
        await asyncio.to_thread(server.start)
        node.start()
        await eventually(lambda: len(lines(mark)) >= 3)
        server.kill()
        await asyncio.to_thread(server.start)
        await eventually(lambda: len(lines(mark)) >= 5)
        node.kill()
        node.start()
        async with server.client() as client:
            done, later = await ended(client, first), await ended(client, second)
            assert (done.summary.state, done.hosts[0].attempt) == ("succeeded", 3)
            assert lines(mark) == ["begun", "ended"] * 3
            assert later.summary.state == "succeeded"
            assert later.summary.started > done.summary.ended, "the lock was free only then"
            ends = [
                c.after for c in await job_control.history(client, first) if c.what == "host" and c.before == "running"
            ]
            assert ends == ["held", "held", "succeeded"]

    asyncio.run(main())


def test_a_rollout_goes_on_and_a_cancel_ends_all_processes(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    seconds = f"98765.{os.getpid()}"  # by which ours is known among all of this machine
    stays = f"- hosts: all\n  gather_facts: false\n  tasks:\n    - shell: 'sleep {seconds} & echo up >> UP; wait'\n"

    def sleeping() -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-1:] == [seconds]]

    async def main() -> None:
        files = {"site.yml": play(mark, "true", 0), "check.yml": play(tmp_path / "checked", "true", 2)}
        async with server.client() as client:
            number = await submit(client, files, rollout=Rollout(["1"], gate_playbook="check.yml"))
            await eventually(lambda: lines(tmp_path / "checked")[:1] == ["begun"])
        server.kill()
        await asyncio.to_thread(server.start)
        async with server.client() as client:
            assert (await ended(client, number)).summary.state == "succeeded"
            assert lines(mark) == lines(tmp_path / "checked") == ["begun", "ended"]
            up = tmp_path / "up"
            number = await submit(
                client, {"site.yml": stays.replace("UP", str(up))}, retries=Retries(1, ["failed"], 0.0)
            )
            await eventually(lambda: lines(up) == ["up"] and sleeping())
            await jobs.cancel(client, number)
            assert (await ended(client, number)).summary.state == "cancelled"
            await eventually(lambda: not sleeping())  # nothing of it is left

    asyncio.run(main())

"""The warm process and the fork server killed in the middle of a job: the playbook goes on, the next job too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil

from llmagentos.api import jobs
from llmagentos.api.jobs import LogLine, TaskResult
from llmagentos.fleet.node.jobdir import JobDirectory
from support.node import NodeProcess, ended, kill_all, submit
from support.server import ServerProcess, eventually

PLAY = """- hosts: all
  gather_facts: false
  tasks:
    - {name: Before, shell: 'echo before >> MARK'}
    - {name: Long, shell: 'echo begun >> MARK; WAIT; echo done >> MARK'}
    - {name: After, shell: 'echo after >> MARK'}
"""
WAIT = "until [ -e MARK.go ] || [ $((i+=1)) -gt 1200 ]; do sleep 0.1; done"
WHOLE = "before\nbegun\ndone\nafter\n"


def play(mark: Path) -> dict[str, str]:
    """Its task in the middle goes on when it is told to."""
    return {"site.yml": PLAY.replace("WAIT", WAIT).replace("MARK", str(mark))}


def go_on(mark: Path) -> None:
    """Tell the task in the middle."""
    Path(f"{mark}.go").touch()


def warm(node: NodeProcess) -> list[psutil.Process]:
    """The warm process and its fork server."""
    found = psutil.process_iter(["cmdline"])
    return [
        p for p in found if "--warm" in (p.info["cmdline"] or []) and str(node.state / "ansible") in p.info["cmdline"]
    ]


def begun(mark: Path) -> bool:
    return mark.exists() and "begun" in mark.read_text()


def test_the_warm_process_is_killed_while_a_playbook_runs(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    mark, later = tmp_path / "mark", tmp_path / "later"

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, play(mark))
            await eventually(lambda: begun(mark))
            record = JobDirectory(node.state / "jobs" / str(number)).runner()
            assert record is not None
            assert psutil.Process(record.pid).ppid() in [process.pid for process in warm(node)], "a fork of it"
            kill_all(warm(node))
            go_on(mark)
            assert (await ended(client, number)).summary.exit_code == 0
            assert mark.read_text() == WHOLE
            go_on(later)
            assert (await ended(client, await submit(client, play(later)))).summary.exit_code == 0
            assert later.read_text() == WHOLE
            await eventually(lambda: warm(node))  # another one

    asyncio.run(main())


def test_the_fork_server_is_killed_while_a_playbook_runs(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    """The module that ran counts as killed; those after it go ansible-core's own way."""
    mark = tmp_path / "mark"
    text = (
        PLAY.replace("WAIT", WAIT)
        .replace("echo done", "echo never")
        .replace("{name: Long,", "{name: Long, ignore_errors: true,")
    )
    files = {"site.yml": text.replace("MARK", str(mark))}

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, files, verbosity=3)
            await eventually(lambda: begun(mark))
            record = JobDirectory(node.state / "jobs" / str(number)).runner()
            assert record is not None
            kill_all(process for process in node.runners(number) if process.pid != record.pid)
            job = await ended(client, number)
            assert job.summary.exit_code == 0, job.hosts
            found = [each.event for each in await jobs.events(client, number)]
            results = {each.task: each.status for each in found if isinstance(each, TaskResult)}
            assert results == {"Before": "changed", "Long": "ignored", "After": "changed"}
            assert mark.read_text() == "before\nbegun\nafter\n"
            assert not any("never" in each.text for each in found if isinstance(each, LogLine))

    asyncio.run(main())


def test_a_playbook_with_its_own_configuration_is_started_anew(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    """ansible-core reads its configuration when it is imported, which the warm process has done."""
    files = {
        "site.yml": "- hosts: all\n  gather_facts: false\n  roles: [told]\n",
        "elsewhere/told/tasks/main.yml": f"- copy: {{content: told, dest: {tmp_path / 'told'}}}\n",
        "ansible.cfg": "[defaults]\nroles_path = elsewhere\n",
    }

    async def main() -> None:
        async with server.client() as client:
            assert (await ended(client, await submit(client, files))).summary.exit_code == 0
            assert (tmp_path / "told").read_text() == "told"
        assert "has its own ansible.cfg" in node.log()

    asyncio.run(main())

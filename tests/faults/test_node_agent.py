"""Node agent, runner and server killed in the middle of a job: no task runs twice, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil

from llmagentos.api import jobs, nodes
from llmagentos.api.jobs import TaskResult
from llmagentos.fleet.node.jobdir import JobDirectory
from llmagentos.fleet.node.session import Session
from llmagentos.fleet.node.state import NodeDirectory
from support.node import NodeProcess, ended, submit
from support.server import ServerProcess, eventually


def play(mark: Path, *, told: bool = False) -> str:
    """Three tasks, each of which notes what it does; the one in the middle goes on when it is `told` to."""
    wait = f"until [ -e {mark}.go ] || [ $((i+=1)) -gt 1200 ]; do sleep 0.1; done; " if told else ""
    return (
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        f"    - {{name: Before, shell: 'echo before >> {mark}'}}\n"
        f"    - {{name: Long, shell: 'echo begun >> {mark}; {wait}echo done >> {mark}'}}\n"
        f"    - {{name: After, shell: 'echo after >> {mark}'}}\n"
    )


def go_on(mark: Path) -> None:
    """Tell the task in the middle."""
    Path(f"{mark}.go").touch()


WHOLE = "before\nbegun\ndone\nafter\n"


def in_the_middle(mark: Path) -> bool:
    return mark.exists() and "begun" in mark.read_text()


async def succeeded(server: ServerProcess, number: int) -> None:
    async with server.client() as client:
        job = await ended(client, number)
        assert (job.summary.state, job.summary.exit_code) == ("succeeded", 0), job.hosts
        events = [record.event for record in await jobs.events(client, number)]
        assert [event.seq for event in events] == list(range(1, len(events) + 1)), "each event once, in order"
        tasks = [event.task for event in events if isinstance(event, TaskResult)]
        assert tasks == ["Before", "Long", "After"]


def test_node_agent_killed_while_a_task_runs(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, {"site.yml": play(mark, told=True)})
        await eventually(lambda: in_the_middle(mark))
        node.kill()
        assert node.runners(number), "the playbook runs on"
        node.start()
        go_on(mark)
        await succeeded(server, number)
        assert mark.read_text() == WHOLE

    asyncio.run(main())


def test_node_agent_back_only_after_the_playbook_ended(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, {"site.yml": play(mark, told=True)})
        await eventually(lambda: in_the_middle(mark))
        node.kill()
        go_on(mark)
        await eventually((node.state / "jobs" / str(number) / "exit.json").exists)
        node.start()
        await succeeded(server, number)
        assert mark.read_text() == WHOLE

    asyncio.run(main())


def test_server_killed_while_a_task_runs(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, {"site.yml": play(mark, told=True)})
        await eventually(lambda: in_the_middle(mark))
        server.kill()
        go_on(mark)
        await eventually(lambda: mark.read_text() == WHOLE)
        await asyncio.to_thread(server.start)
        await succeeded(server, number)
        assert mark.read_text() == WHOLE

    asyncio.run(main())


def test_both_killed(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, {"site.yml": play(mark, told=True)})
        await eventually(lambda: in_the_middle(mark))
        server.kill()
        node.kill()
        node.start()
        await asyncio.to_thread(server.start)
        go_on(mark)
        await succeeded(server, number)
        assert mark.read_text() == WHOLE

    asyncio.run(main())


def test_a_killed_runner_is_interrupted_and_not_run_again(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    mark, later = tmp_path / "mark", tmp_path / "later"

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, {"site.yml": play(mark, told=True)})
            behind = await submit(client, {"site.yml": play(later)})
            await eventually(lambda: in_the_middle(mark))
            left = [child for runner in node.runners(number) for child in runner.children(recursive=True)]
            assert left
            record = JobDirectory(node.state / "jobs" / str(number)).runner()
            assert record is not None
            psutil.Process(record.pid).kill()
            job = await ended(client, number)
            assert job.hosts[0].state == "interrupted"
            assert "not run again" in (job.hosts[0].message or "")
            await eventually(lambda: all(_ended(process.pid) for process in left))  # its task was ended too
            assert mark.read_text() == "before\nbegun\n"
            assert (await ended(client, behind)).summary.exit_code == 0, "the queue goes on"

    asyncio.run(main())


def test_a_job_waits_for_a_disk_that_can_be_used(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    mark, blocked = tmp_path / "mark", node.state / "jobs/1"
    blocked.write_text("no directory can be made here")

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, {"site.yml": play(mark)})
        await eventually(lambda: "cannot be used" in node.log())
        blocked.unlink()
        await succeeded(server, number)
        assert mark.read_text() == WHOLE

    asyncio.run(main())


def test_a_claim_whose_answer_was_lost_and_a_bundle_half_unpacked(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"

    async def main() -> None:
        node.stop()
        async with server.client() as client:
            number = await submit(client, {"site.yml": play(mark)})
        half = node.state / "jobs" / str(number) / "bundle" / "half"
        half.parent.mkdir(parents=True)
        half.write_text("of a file")
        identity = NodeDirectory(node.state).read_identity()
        assert identity is not None
        async with Session(NodeDirectory(node.state), identity, server.url, None) as as_node:
            assert (await jobs.claim(as_node, wait=5)).job is not None
        node.start()
        await succeeded(server, number)
        assert mark.read_text() == WHOLE
        assert not half.exists()

    asyncio.run(main())


def test_modules_do_not_outlive_a_killed_node_agent(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def main() -> None:
        async with server.client() as client:
            await nodes.allow(client, node.name, "web")
        (node.state / "modules.d/web.yaml").write_text(f'command: [sh, -c, "echo $$ >> {pids}; exec sleep 600"]\n')
        await eventually(lambda: pids.exists() and pids.read_text().endswith("\n"))
        first = int(pids.read_text())
        node.kill()
        await eventually(lambda: _ended(first))
        node.start()
        await eventually(lambda: len(pids.read_text().splitlines()) == 2)
        assert node.stop() == 0
        await eventually(lambda: all(map(_ended, map(int, pids.read_text().split()))))
        assert "killing it" not in node.log(), "they were asked to end, and that was enough"

    asyncio.run(main())


def _ended(pid: int) -> bool:
    """Gone, or a zombie that nobody has collected (a container's first process need not do that)."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True

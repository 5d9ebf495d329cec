"""`llmctl run` and its neighbours against a real server; the node is a fake that speaks the API."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from llmagentos.api import jobs
from support.server import ServerProcess

pytestmark = pytest.mark.anyio

PLAYBOOK = "- hosts: all\n  tasks:\n    - name: Say it\n      command: echo hello\n"


async def llmctl(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(server.llmctl, *arguments)


async def play(node, *, status: jobs.HostEnd, code: int) -> jobs.NodeJob:
    job = await node.claimed(wait=60)
    task = {"at": 0.0, "host": node.name, "task": "Say it"}
    result = "changed" if status == "succeeded" else "failed"
    await jobs.send_events(
        node.client,
        job.job,
        job.fence,
        [
            jobs.PlayStarted(seq=1, at=0.0, name="all"),
            jobs.TaskStarted(seq=2, at=0.0, name="Say it"),
            jobs.TaskResult(seq=3, status=result, result={"msg": "你好"}, **task),
        ],
    )
    stats = jobs.Stats(ok=1) if status == "succeeded" else jobs.Stats(failed=1)
    await jobs.finish(node.client, job.job, jobs.Finish(job.fence, status, code, stats))
    return job


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 2), ("unreachable", 4)])
async def test_a_run_is_watched_to_its_end(server, join, status, code):
    (server.directory / "site.yml").write_text(PLAYBOOK)
    async with join(server, "web1") as node:
        done, job = await asyncio.gather(
            llmctl(server, "run", "site.yml", "-e", "who=你", "--check", "--diff", "-t", "a,b"),
            play(node, status=status, code=code),
        )
    assert done.returncode == code, done.stderr
    lines = [line.rstrip("* ") for line in done.stdout.splitlines() if line]
    expected = {0: "changed: [web1]"}.get(code, 'fatal: [web1]: FAILED! => {"msg": "你好"}')
    assert lines[:3] == ["PLAY [all]", "TASK [Say it]", expected]
    assert lines[3] == "PLAY RECAP"
    assert (job.extra_vars, job.check, job.diff, job.tags) == ({"who": "你"}, True, True, ["a", "b"])
    shown = json.loads((await llmctl(server, "job", "show", "1", "--json")).stdout)
    assert shown["job"]["summary"]["exit_code"] == code
    assert "web1" in (await llmctl(server, "job", "show", "1")).stdout
    again = await llmctl(server, "job", "logs", "1", "-f")
    assert (again.stdout, again.returncode) == (done.stdout, code)


async def test_faults_end_with_exit_code_2_and_queue_nothing(server, join):
    (server.directory / "typo.yml").write_text(PLAYBOOK.replace("command", "comand"))
    (server.directory / "site.yml").write_text(PLAYBOOK)
    async with join(server, "web1"):
        for arguments, message in (
            (("typo.yml",), "typo.yml:4: unknown task module 'comand': the nearest is 'command'"),
            (("site.yml", "-l", "web2"), "unknown host or group 'web2'"),
            (("nothing.yml",), "there is no playbook 'nothing.yml'"),
            (("site.yml", "-i", "nothing.ini"), "nothing.ini cannot be read"),
            (("site.yml", "-e", "x"), "expected name=value"),
        ):
            done = await llmctl(server, "run", *arguments)
            assert (done.returncode, done.stdout) == (2, ""), done
            assert message in done.stderr
            assert done.stderr.startswith("error: ")
    assert json.loads((await llmctl(server, "jobs", "--json")).stdout) == []


async def test_detached_listed_and_cancelled(server, join):
    (server.directory / "site.yml").write_text(PLAYBOOK)
    async with join(server, "web1"):
        assert (await llmctl(server, "run", "site.yml", "--detach")).stdout == "1\n"
        assert "queued" in (await llmctl(server, "jobs")).stdout
        assert (await llmctl(server, "job", "cancel", "1")).returncode == 0
        again = await llmctl(server, "job", "cancel", "1")
        assert again.returncode == 2 and "has ended: cancelled" in again.stderr
        assert (await llmctl(server, "job", "logs", "1", "-f")).returncode == 1
        assert (await llmctl(server, "job", "show", "7")).returncode == 2


async def test_a_run_goes_on_through_a_restart_of_the_server(server, join):
    (server.directory / "site.yml").write_text(PLAYBOOK)
    async with join(server, "web1") as node:
        command = [sys.executable, "-m", "llmagentos.cli.main", "run", "site.yml"]
        running = await asyncio.create_subprocess_exec(
            *command, cwd=server.directory, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert running.stderr is not None
        assert await asyncio.wait_for(running.stderr.readline(), 60) == b"job 1 on web1\n"
        await node.claimed(wait=60)
        await asyncio.to_thread(server.kill)
        assert b"the server is away" in await asyncio.wait_for(running.stderr.readline(), 60)
        await asyncio.to_thread(server.start)
        await node.client.aclose()  # its connections are the dead server's; new ones are made as needed
        async with server.client() as admin:
            assert (await jobs.show(admin, 1)).summary.state == "running"
        fresh = await node.claimed(wait=60)
        assert fresh.resumed
        await node.work(fresh)
        out, err = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == 0, err
    assert out.decode().count("ok: [web1]") == 3


async def test_nodes_are_listed_shown_and_removed(server, join):
    async with join(server, "web1"):
        assert "ready" in (await llmctl(server, "nodes")).stdout
        assert "Debian 12" in (await llmctl(server, "node", "show", "web1")).stdout
        wrong = await llmctl(server, "node", "show", "web")
        assert wrong.returncode == 2 and "did you mean 'web1'?" in wrong.stderr
        assert (await llmctl(server, "node", "remove", "web1")).returncode == 0
        assert json.loads((await llmctl(server, "nodes", "--json")).stdout) == []

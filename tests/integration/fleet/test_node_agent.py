"""A real node agent against a real server: jobs from end to end, modules, metrics, stopping."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from llmagentos.api import jobs, nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import LogLine, TaskResult
from support.node import NodeProcess, ended, submit
from support.server import ServerProcess, eventually

PLAY = """
- name: Hello
  hosts: all
  gather_facts: false
  tasks:
    - name: Write
      copy: {{content: "{{{{ word }}}}\\n", dest: "{there}/made"}}
    - name: Read
      command: cat {there}/made
      changed_when: false
"""

MODULE_PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - copy:
        dest: "{{ llmagentos_modules_dir }}/web.yaml"
        content: |
          command: ["{{ llmagentos_python }}", -c, "import time; print('up', flush=True); time.sleep(600)"]
"""


def sleeping(mark: Path) -> str:
    return (
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        f"    - {{name: Long, shell: 'echo begun >> {mark}; sleep 60; echo done >> {mark}'}}\n"
    )


def waiting(mark: Path) -> str:
    """Like `sleeping`, until `go`."""
    return sleeping(mark).replace("sleep 60", f"while ! test -e {mark}.go; do sleep 0.05; done")


def go(mark: Path) -> None:
    Path(f"{mark}.go").touch()


async def results(client: ApiClient, job: int) -> dict[str, TaskResult]:
    records = await jobs.events(client, job)
    return {r.event.task: r.event for r in records if isinstance(r.event, TaskResult)}


def test_a_job_from_end_to_end(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    async def main() -> None:
        async with server.client() as client:
            files = {"site.yml": PLAY.format(there=tmp_path)}
            job = await ended(client, await submit(client, files, extra_vars={"word": "你好"}, diff=True))
            assert (job.summary.state, job.summary.exit_code) == ("succeeded", 0)
            assert (tmp_path / "made").read_text() == "你好\n"
            found = await results(client, job.summary.id)
            assert found["Read"].result["stdout"] == "你好"
            assert found["Write"].diff[0].after == "你好\n"
            again = await ended(client, await submit(client, files, extra_vars={"word": "你好"}))
            assert again.hosts[0].recap is not None
            assert again.hosts[0].recap.changed == 0
            # What may hold secrets goes once the server knows the end.
            await eventually(lambda: not list((node.state / "jobs").glob("*/spec.json")))

    asyncio.run(main())


def test_failed_and_bad_jobs_end_with_their_code(server: ServerProcess, node: NodeProcess) -> None:
    play = "- hosts: all\n  gather_facts: false\n  tasks:\n    - command: /bin/false\n"
    role = "- hosts: all\n  gather_facts: false\n  tasks:\n    - include_tasks: missing.yml\n"

    async def main() -> None:
        async with server.client() as client:
            failed = await ended(client, await submit(client, {"site.yml": play}))
            assert (failed.summary.state, failed.summary.exit_code) == ("failed", 2)
            missing = await ended(client, await submit(client, {"site.yml": role}))
            assert missing.summary.exit_code == 2

    asyncio.run(main())


def test_a_job_is_cancelled_while_it_runs(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, {"site.yml": sleeping(mark)})
            await eventually(mark.exists, within=60)
            await jobs.cancel(client, number)
            job = await ended(client, number)
            assert job.hosts[0].state == "cancelled"
            await eventually(lambda: node.runners(number) == [])
            assert mark.read_text() == "begun\n"

    asyncio.run(main())


def test_a_job_that_takes_too_long_is_stopped(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def main() -> None:
        async with server.client() as client:
            job = await ended(client, await submit(client, {"site.yml": sleeping(mark)}, timeout_s=3))
            assert job.hosts[0].state == "failed"
            assert "longer than 3 s" in (job.hosts[0].message or "")

    asyncio.run(main())


def test_stopping_leaves_the_playbook_and_says_so(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, {"site.yml": waiting(mark)})
            await eventually(mark.exists, within=60)
            assert node.stop() == 0
            assert mark.read_text() == "begun\n", "it does not wait for the playbook"
            assert "a playbook runs on" in node.log()
            go(mark)
            await eventually(lambda: mark.read_text() == "begun\ndone\n")
            node.start()
            job = await ended(client, number)
            assert job.summary.exit_code == 0
            assert (await results(client, number))["Long"].status == "changed"
            assert mark.read_text() == "begun\ndone\n", "no task ran twice"

    asyncio.run(main())


def test_a_module_unit_from_a_playbook(server: ServerProcess, node: NodeProcess) -> None:
    async def main() -> None:
        async with server.client() as client:
            assert (await ended(client, await submit(client, {"site.yml": MODULE_PLAY}))).summary.exit_code == 0
            log = node.state / "modules/web/module.log"
            await eventually(lambda: log.exists() and log.read_text() == "up\n")
            while not (shown := (await node.status()).modules) or shown[0].state != "running":
                await asyncio.sleep(0.05)
            token = (node.state / "modules/web/token").read_text().strip()
            assert token.startswith("lao_module_")
            assert shown[0].pid is not None
            module.append(psutil.Process(shown[0].pid))

    module: list[psutil.Process] = []
    asyncio.run(main())
    assert module[0].is_running()
    assert node.stop() == 0
    assert not module[0].is_running(), "its modules stop with it"
    assert "did not stop" not in node.log()


def test_metrics_need_the_token(node: NodeProcess, promtool: str) -> None:
    url = (node.state / "metrics.address").read_text().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
        assert refused.value.code == 401
        refused.value.close()
    token = (node.state / "metrics.token").read_text().strip()
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
    assert "llmagentos_node_heartbeats_total" in text
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    faults = [line for line in checked.stderr.splitlines() if "camelCase" not in line]  # node-exporter has them
    assert faults == []
    assert (node.state / "metrics.token").stat().st_mode & 0o777 == 0o600


def test_a_second_agent_on_the_same_state_says_who_holds_it(node: NodeProcess) -> None:
    first = node.process
    assert first is not None
    node.start()
    second = node.process
    node.process = first
    assert second is not None
    assert second.wait(60) == 1
    assert f"process {first.pid}" in node.log()


def test_a_removed_node_ends_and_says_what_to_do(server: ServerProcess, node: NodeProcess) -> None:
    async def main() -> None:
        async with server.client() as client:
            await nodes.remove(client, node.name)

    asyncio.run(main())
    assert node.process is not None
    assert node.process.wait(60) != 0
    assert "no longer the node 'web1'" in node.log()
    assert "hint: to join again" in node.log()


def test_join_by_llmctl(server: ServerProcess, tmp_path: Path) -> None:
    made = server.llmctl("token", "create", "--kind", "join", "web9", "--json")
    token = re.search(r"lao_join_[\w-]+", made.stdout)
    assert token, made.stdout + made.stderr
    argv = [sys.executable, "-m", "llmagentos.cli.main", "node", "join", server.url]
    argv += ["--token", "-", "--name", "web9", "--state", str(tmp_path / "web9")]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=server.env)
    try:
        assert process.stdin is not None
        process.stdin.write(token[0].encode() + b"\n")
        process.stdin.close()
        identity = tmp_path / "web9/identity.json"
        deadline = time.monotonic() + 60
        while not identity.exists():
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert identity.stat().st_mode & 0o777 == 0o600
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == 0


def test_a_bad_join_token_is_told(server: ServerProcess, tmp_path: Path) -> None:
    directory = tmp_path / "web8"
    directory.mkdir()
    node = NodeProcess(directory, server, "web8")
    node.join_token.write_text("lao_join_nonsense")
    node.join_token.chmod(0o600)
    node.start()
    assert node.process is not None
    assert node.process.wait(60) == 2
    assert "hint: it is good for a limited time" in node.log()


def test_the_log_says_the_job(server: ServerProcess, node: NodeProcess) -> None:
    async def main() -> None:
        async with server.client() as client:
            play = "- hosts: all\n  gather_facts: false\n  tasks:\n    - ping:\n"
            job = await ended(client, await submit(client, {"site.yml": play}))
            records = await jobs.events(client, job.summary.id)
            assert not [r for r in records if isinstance(r.event, LogLine)]

    asyncio.run(main())
    assert '"job_id": "1"' in node.log()

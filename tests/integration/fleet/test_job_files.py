"""What playbooks fetch comes to whoever ran them, and nothing else can be written there; the nodes are fakes."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path

import pytest

from llmagentos.api import job_files, jobs
from llmagentos.api.job_files import FETCHED_BEFORE, Fetched
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput, NotFound, TooLarge
from support.node import NodeProcess, ended, submit
from support.server import ServerProcess, eventually

pytestmark = pytest.mark.anyio

PLAYBOOK = """\
- hosts: all
  tasks:
    - fetch: {src: /etc/hosts, dest: fetched}
    - fetch: {src: /etc/issue, dest: "{{ somewhere }}", flat: true}
"""


def told(path: str, content: bytes, source: str = "/etc/hosts") -> Fetched:
    return Fetched(path, source, sha256(content).hexdigest(), len(content))


async def send(node, job: jobs.NodeJob, path: str, content: bytes) -> None:
    await job_files.send(node.client, job.job, job.fence, told(path, content), content)


async def test_files_are_written_where_the_playbook_has_them_and_nowhere_else(server: ServerProcess, join) -> None:
    work = server.directory / "play"
    work.mkdir()
    (work / "site.yml").write_text(PLAYBOOK)

    async def fetch(node) -> None:
        job = await node.claimed(wait=60)
        await send(node, job, "fetched/web1/etc/hosts", b"first")
        await send(node, job, "fetched/web1/etc/hosts", "你好".encode())
        await send(node, job, "fetched/web1/empty", b"")
        await send(node, job, "site.yml", b"- hosts: all\n")
        await send(node, job, "/etc/llmagentos-never", b"x")
        await send(node, job, "fetched/web2/etc/hosts", b"x")
        await node.work(job)

    async with join(server, "web1") as node:
        done, _ = await asyncio.gather(asyncio.to_thread(server.llmctl, "run", "play/site.yml"), fetch(node))
        assert done.returncode == 1, done.stderr
        assert "2 fetched files are written below play/fetched/web1" in done.stderr
        assert "3 fetched files are not written" in done.stderr
        assert "`llmctl job files 1 --to DIR`" in done.stderr
        assert (work / "fetched/web1/etc/hosts").read_text() == "你好"
        assert (work / "fetched/web1/empty").read_bytes() == b""
        assert (work / "site.yml").read_text() == PLAYBOOK
        assert not Path("/etc/llmagentos-never").exists()
        assert not (work / "fetched/web2").exists()
        done = await asyncio.to_thread(server.llmctl, "job", "files", "1", "--to", "got", "--json")
        assert done.returncode == 0, done.stderr
        assert [each["id"] for each in json.loads(done.stdout)] == [2, 3, 4, 5, 6]
        assert (server.directory / "got/etc/llmagentos-never").read_bytes() == b"x"
        assert "/etc/hosts" in (await asyncio.to_thread(server.llmctl, "job", "files", "1")).stdout


async def test_llmctl_run_says_what_is_there_already(server: ServerProcess, join, tmp_path: Path) -> None:
    work = server.directory / "play"
    work.mkdir()
    (work / "site.yml").write_text(f"- hosts: all\n  tasks:\n    - fetch: {{src: /etc/hosts, dest: {tmp_path}/got}}\n")
    path = tmp_path / "got/web1/etc/hosts"

    async def fetch(node) -> jobs.NodeJob:
        job = await node.claimed(wait=30)
        await send(node, job, str(path), b"hosts")
        await node.work(job)
        return job

    async with join(server, "web1") as node:
        told = []
        for _ in range(2):
            run = asyncio.to_thread(server.llmctl, "run", "play/site.yml")
            done, job = await asyncio.gather(run, fetch(node))
            assert done.returncode == 0, done.stderr
            told.append((job.extra_vars, job.literal))
        assert path.read_bytes() == b"hosts"
        before = {FETCHED_BEFORE: {str(path): sha256(b"hosts").hexdigest()}}
        assert told == [({}, []), (before, [FETCHED_BEFORE])]


async def test_who_may_read_and_write_them(server: ServerProcess, join, submit, monkeypatch) -> None:
    async with server.client() as admin, join(server, "n1") as one, join(server, "n2") as two:
        sent = await submit(admin, limit="n1")
        number = sent.summary.id
        job = await one.claimed()
        await send(one, job, "fetched/n1/x", b"secret")
        forged = told("fetched/n1/x", b"forged")
        with pytest.raises(Conflict):
            await job_files.send(two.client, number, job.fence, forged, b"forged")
        with pytest.raises(Conflict):
            await job_files.send(one.client, number, job.fence - 1, forged, b"forged")
        with pytest.raises(InvalidInput, match="SHA-256"):
            await job_files.send(one.client, number, job.fence, forged, b"another")
        with pytest.raises(InvalidInput, match="no fetched file"):
            await job_files.send(one.client, number, job.fence, Fetched("a\nb", "/x", forged.digest, 6), b"forged")
        with pytest.raises(TooLarge):
            large = bytes(job_files.MAX_FILE_BYTES + 1)
            await job_files.send(one.client, number, job.fence, Fetched("x", "/x", "0" * 64, 1), large)
        await asyncio.gather(*(send(one, job, f"fetched/n1/many/{n}", b"%d" % n) for n in range(20)))
        await one.work(job)
        with pytest.raises(Conflict):
            await job_files.send(one.client, number, job.fence, forged, b"forged")
        found = await job_files.listing(admin, number)
        assert len(found) == 21
        assert (found[0].node, found[0].path, found[0].size) == ("n1", "fetched/n1/x", 6)
        assert await job_files.content(admin, number, found[0].id) == b"secret"
        with pytest.raises(NotFound):
            await job_files.content(admin, number, 99)
        made = await admin.post("/api/v1/tokens", TokenRequest("viewer", "vi"), NewToken)
        async with server.client(made.token) as viewer:
            assert await job_files.listing(viewer, number) == found
            with pytest.raises(Forbidden):
                await job_files.content(viewer, number, found[0].id)
        with pytest.raises(Forbidden):
            await job_files.content(two.client, number, found[0].id)


REAL = """\
- hosts: all
  gather_facts: false
  tasks:
    - copy: {content: "one\\n", dest: "{{ out }}/a"}
    - fetch: {src: "{{ out }}/a", dest: fetched}
    - copy: {content: "two\\n", dest: "{{ out }}/a"}
    - fetch: {src: "{{ out }}/a", dest: "{{ out }}/absolute/", flat: true}
      register: got
    - copy: {src: "{{ got.dest }}", dest: "{{ out }}/b"}
    - {fetch: {src: "{{ out }}/a", dest: ../outside}, ignore_errors: true, register: outside}
    - {command: "truncate -s 40M {{ out }}/large"}
    - {fetch: {src: "{{ out }}/large", dest: fetched}, ignore_errors: true, register: large}
    - assert: {that: ["'leads out' in outside.msg", "'at most' in large.msg", "got.dest == out + '/absolute/a'"]}
"""


def test_a_node_sends_what_its_tasks_fetch(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, {"site.yml": REAL}, extra_vars={"out": str(tmp_path)})
            job = await ended(client, number)
            assert job.summary.state == "succeeded", await jobs.events(client, number)
            found = {each.path: each for each in await job_files.listing(client, number)}
            relative = f"fetched/{job.summary.nodes[0]}{tmp_path}/a"
            assert set(found) == {relative, f"{tmp_path}/absolute/a"}
            assert await job_files.content(client, number, found[relative].id) == b"one\n"
            assert await job_files.content(client, number, found[f"{tmp_path}/absolute/a"].id) == b"two\n"
            assert not (tmp_path / "absolute").exists(), "nothing is written on the node"
            assert (tmp_path / "b").read_text() == "two\n"
            await eventually(lambda: not list((node.state / "jobs").glob("*/fetched*")))

    asyncio.run(main())


AGAIN = """\
- hosts: all
  gather_facts: false
  tasks:
    - copy: {content: "one\\n", dest: "{{ out }}/a"}
    - {name: the same, fetch: {src: "{{ out }}/a", dest: "{{ out }}/absolute/", flat: true}, register: same}
    - {name: another one, fetch: {src: "{{ out }}/a", dest: "{{ out }}/other", flat: true}}
    - {name: not told, fetch: {src: "{{ out }}/a", dest: "{{ out }}/untold/"}}
    - copy: {content: "two\\n", dest: "{{ out }}/a"}
    - {name: new, fetch: {src: "{{ out }}/a", dest: "{{ out }}/absolute/", flat: true}}
    - copy: {content: "one\\n", dest: "{{ out }}/a"}
    - {name: and back, fetch: {src: "{{ out }}/a", dest: "{{ out }}/absolute/", flat: true}}
    - {name: still, fetch: {src: "{{ out }}/a", dest: "{{ out }}/absolute/", flat: true}}
    - assert: {that: ["same.file == out + '/a'", "same.dest == out + '/absolute/a'", "same.checksum is defined"]}
"""


def test_what_is_there_already_has_not_changed(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    async def main() -> None:
        before = {f"{tmp_path}/absolute/a": sha256(b"one\n").hexdigest(), f"{tmp_path}/other": "0" * 64}
        variables = {"out": str(tmp_path), FETCHED_BEFORE: before}
        async with server.client() as client:
            number = await submit(client, {"site.yml": AGAIN}, extra_vars=variables, literal=[FETCHED_BEFORE])
            job = await ended(client, number)
            events = [record.event for record in await jobs.events(client, number)]
            results = [each for each in events if isinstance(each, jobs.TaskResult)]
            assert job.summary.state == "succeeded", [each for each in results if each.status == "failed"]
            assert {each.task: each.status for each in results if each.action == "fetch"} == {
                "the same": "ok",
                "another one": "changed",
                "not told": "changed",
                "new": "changed",
                "and back": "changed",
                "still": "ok",
            }
            assert len(await job_files.listing(client, number)) == 3, "they are sent all the same"

    asyncio.run(main())


BETWEEN = """\
- hosts: web1
  gather_facts: false
  tasks:
    - copy: {content: "token 你好\\n", dest: "{{ out }}/token"}
    - fetch: {src: "{{ out }}/token", dest: NOWHERE/, flat: true}
- hosts: web2
  gather_facts: false
  tasks:
    - copy: {src: NOWHERE/token, dest: "{{ out }}/joined"}
"""


def test_what_one_node_fetches_another_one_uses(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    async def main() -> None:
        directory = tmp_path / "web2"
        directory.mkdir()
        nowhere = tmp_path / "nowhere"
        files = {"site.yml": BETWEEN.replace("NOWHERE", str(nowhere))}
        other = await NodeProcess(directory, server, "web2").join()
        try:
            async with server.client() as client:
                number = await submit(client, files, extra_vars={"out": str(tmp_path)})
                job = await ended(client, number)
                assert job.summary.state == "succeeded", job.hosts
                assert (tmp_path / "joined").read_text() == "token 你好\n"
                assert not nowhere.exists()
                assert [each.path for each in await job_files.listing(client, number)] == [f"{nowhere}/token"]
                for state in (node.state, other.state):
                    await eventually(lambda state=state: not list((state / "jobs").glob("*/bundle")))  # type: ignore[misc]
        finally:
            other.stop()

    asyncio.run(main())


async def test_nodes_that_do_not_use_each_others_files_do_not_get_them(server: ServerProcess, join, submit) -> None:
    async with server.client() as admin, join(server, "n1") as one, join(server, "n2") as two:
        await submit(admin, "- hosts: all\n  tasks:\n    - fetch: {src: /etc/issue, dest: fetched}\n")
        first, second = await one.claimed(), await two.claimed()
        await send(one, first, "fetched/n1/etc/issue", b"secret")
        with pytest.raises(NotFound):
            digest = sha256(b"secret").hexdigest()
            await job_files.of_other_node(two.client, second.job, second.fence, digest)
        await one.work(first)
        await two.work(second)

"""Two servers on one PostgreSQL: a node's calls of its job may go to either, and both refuse a replaced agent."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from copy import copy
from hashlib import sha256
from pathlib import Path

import pytest

from llmagentos.api import job_files, jobs, nodes, plays, telemetry
from llmagentos.api.client import ApiClient
from llmagentos.api.job_files import Fetched
from llmagentos.api.jobs import Finish, NodeJob
from llmagentos.api.telemetry import Batch, Line, Sample
from llmagentos.kernel.leases import LeaseLost
from support.node import NodeProcess, submit
from support.server import ServerProcess, eventually

pytestmark = pytest.mark.anyio

PLAY = """\
- hosts: all
  gather_facts: false
  serial: 1
  tasks:
    - {fetch: {src: /etc/hosts, dest: fetched}}
    - {copy: {src: fetched/a/etc/hosts, dest: /tmp/never}}
"""
CONTENT = b"127.0.0.1 localhost\n"
DIGEST = sha256(CONTENT).hexdigest()
FILE = Fetched("fetched/a/etc/hosts", "/etc/hosts", DIGEST, len(CONTENT))


def calls(client: ApiClient, job: NodeJob, node: str) -> dict[str, Callable[[], Awaitable[object]]]:
    """What a node says of its job, at the server of `client`."""
    line = jobs.LogLine(seq=1, at=0.0, text="one")
    return {
        "renew": lambda: jobs.renew(client, job.job, job.fence),
        "events": lambda: jobs.send_events(client, job.job, job.fence, [line]),
        "share": lambda: plays.share(client, job.job, job.fence, 1, [{"word": node}]),
        "shared": lambda: plays.shared(client, job.job, job.fence, after=0, gone=0, wait=0),
        "send": lambda: job_files.send(client, job.job, job.fence, FILE, CONTENT),
        "get": lambda: job_files.of_other_node(client, job.job, job.fence, DIGEST),
        "finish": lambda: jobs.finish(client, job.job, Finish(job.fence, "succeeded", 0)),
    }


async def followed_to_its_end(server: ServerProcess, job: int) -> list[str]:
    """The states of a job, as those who watch it are told."""
    async with server.client() as client, jobs.follow(client, job) as told:
        return [each.summary.state async for each in told if isinstance(each, jobs.Job)]


async def test_each_call_may_go_to_either_server(two_servers, join, submit) -> None:
    one, two = two_servers
    async with one.client() as admin, join(one, "a") as a, join(one, "b") as b, AsyncExitStack() as stack:
        at_two = {node.name: await stack.enter_async_context(two.client(node.token)) for node in (a, b)}
        waiting_claim = asyncio.create_task(jobs.claim(at_two["b"], wait=60))
        number = (await submit(admin, PLAY)).summary.id
        followed = asyncio.create_task(followed_to_its_end(two, number))
        replaced = await a.claimed()
        for_a, for_b = (await jobs.claim(at_two["a"], wait=60)).job, (await waiting_claim).job
        assert for_a is not None and for_a.resumed and for_a.fence > replaced.fence
        assert for_b is not None, "it waited at the other server than the job came to"
        for client in (a.client, at_two["a"]):
            for name, call in calls(client, replaced, "a").items():
                with pytest.raises(LeaseLost):
                    pytest.fail(f"{name} of a replaced agent: {await call()}")
        for client in (a.client, at_two["a"]):  # the lease is of the second one
            said = calls(client, for_a, "a")
            for name in ("renew", "events", "share", "send"):
                await said[name]()
        for client in (b.client, at_two["b"]):
            said = calls(client, for_b, "b")
            await said["share"]()
            heard = await said["shared"]()
            assert [(each.node, each.share) for each in heard.shares] == [("a", {"word": "a"}), ("b", {"word": "b"})]
            assert await said["get"]() == CONTENT
        waiting = asyncio.create_task(plays.shared(b.client, number, for_b.fence, after=2, gone=0, wait=60))
        await calls(at_two["a"], for_a, "a")["finish"]()
        await calls(a.client, for_a, "a")["finish"]()  # the answer was lost
        assert (await waiting).gone == {"a": "succeeded"}
        await calls(at_two["b"], for_b, "b")["finish"]()
        async with asyncio.timeout(60):
            assert (await followed)[-1] == "succeeded"
        done = await jobs.show(admin, number)
        assert (done.summary.state, done.summary.exit_code) == ("succeeded", 0)
        assert len(await jobs.events(admin, number)) == 1, "said twice, kept once"
        for name, call in calls(a.client, for_a, "a").items():
            if name != "finish":
                with pytest.raises(LeaseLost):
                    pytest.fail(f"{name} after the end: {await call()}")


REAL = """\
- hosts: all
  gather_facts: false
  tasks:
    - {command: "echo {{ inventory_hostname }}", register: mine}
    - {copy: {content: "of {{ inventory_hostname }}", dest: "{{ out }}/{{ inventory_hostname }}.txt"}}
    - {fetch: {src: "{{ out }}/{{ inventory_hostname }}.txt", dest: got/, flat: true}}
    - debug: {msg: "{{ groups['all'] | map('extract', hostvars, ['mine', 'stdout']) | join(' ') }}"}
      register: all_of_them
    - assert: {that: "all_of_them.msg == 'a b'"}
    - copy: {content: "{{ lookup('file', 'got/a.txt') }} {{ lookup('file', 'got/b.txt') }}",
             dest: "{{ out }}/both-{{ inventory_hostname }}"}
"""


class Balancer:
    """Hands each connection to the next server; `turn` cuts all there are: they come again to another."""

    def __init__(self, servers: Sequence[ServerProcess]) -> None:
        self._servers = itertools.cycle(servers)
        self.counts: Counter[str] = Counter()
        self._going: set[asyncio.StreamWriter] = set()
        self.url = ""

    async def __aenter__(self) -> Balancer:
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        self.turn()
        while self._going:
            await asyncio.sleep(0.01)

    def turn(self) -> None:
        for writer in list(self._going):
            writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = next(self._servers)
        self.counts[server.url] += 1
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        self._going |= {writer, back}
        await asyncio.gather(_pour(reader, back), _pour(there, writer))
        self._going -= {writer, back}


async def _pour(source: asyncio.StreamReader, into: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            into.write(data)
            await into.drain()
    into.close()


def share_files(one: ServerProcess, two: ServerProcess) -> None:
    """What several servers share beside their database: keys, and the bytes of bundles and fetched files."""
    two.state.mkdir(mode=0o700)
    for name in ("keys", "blobs", "fetched"):
        (one.state / name).mkdir(mode=0o700, exist_ok=True)
        (two.state / name).symlink_to(one.state / name)


async def test_nodes_work_through_a_balancer_that_changes_its_mind(postgres, tmp_path: Path) -> None:
    """Their job spans them, and a file of one is used by the other; nothing runs twice and nothing is lost."""
    database, made = postgres.create(), []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(ServerProcess(tmp_path / name, database=database))
    one, two = made
    async with AsyncExitStack() as stack:
        stack.callback(one.start().stop)
        share_files(one, two)
        stack.callback(two.start().stop)
        balancer = await stack.enter_async_context(Balancer(made))
        balanced = copy(one)
        balanced.url = balancer.url
        agents = []
        for name in "ab":
            (tmp_path / name).mkdir()
            agents.append(await NodeProcess(tmp_path / name, balanced, name).join())
            stack.callback(agents[-1].stop)
        client = await stack.enter_async_context(two.client())
        number = await submit(client, {"site.yml": REAL}, extra_vars={"out": str(tmp_path)})
        await eventually(lambda: all("playbook started" in node.log() for node in agents), within=60)
        deadline = time.monotonic() + 90
        while (job := await jobs.show(client, number)).summary.ended is None:
            assert time.monotonic() < deadline, f"the job has not ended: {job.hosts}"
            balancer.turn()
            await asyncio.sleep(0.4)
        records = [record.event for record in await jobs.events(client, number)]
        failed = [event.result for event in records if isinstance(event, jobs.TaskResult) and event.status == "failed"]
        assert (job.summary.state, failed) == ("succeeded", [])
        for server in made:
            async with server.client() as admin:
                while (states := [each.state for each in await nodes.listing(admin)]) != ["ready", "ready"]:
                    assert time.monotonic() < deadline, states
                    await asyncio.sleep(0.2)
        assert {(tmp_path / f"both-{name}").read_text() for name in "ab"} == {"of a of b"}
        for log in (node.log() for node in agents):
            assert log.count("playbook started") == 1
            assert '"resumed": true' not in log, "it lost its lease"
        assert balancer.counts.keys() == {one.url, two.url}


async def test_what_a_node_measured_and_logged_is_told_by_either_server(two_servers, join) -> None:
    one, two = two_servers
    async with join(one, "a") as node, two.client() as person, telemetry.follow(person, "a") as told:
        for number in (1, 2):
            now = time.time()
            sample, line = Sample(now, {"node_load1": float(number)}), Line(now, "app", f"line {number}")
            await telemetry.send(node.client, Batch("spool", number, [sample], [line]))
            async with asyncio.timeout(60):
                assert (await anext(told)).text == f"line {number}"
            latest = await telemetry.latest(person, "a")
            assert latest is not None and latest.values == sample.values

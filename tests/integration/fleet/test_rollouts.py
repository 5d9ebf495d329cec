"""Rollouts in batches with gates and rollback. Nodes are fakes that speak the API; gates are real HTTP servers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from llmagentos.api import job_control, jobs
from llmagentos.api.job_control import Rollout
from llmagentos.core.errors import InvalidInput, Unavailable

pytestmark = pytest.mark.anyio

NAMES = [f"n{i}" for i in range(6)]
FILES = dict.fromkeys(("check.yml", "rollback.yml"), "- hosts: all\n  tasks: [{ping: }]\n")


class Health:
    """An HTTP server whose answers are told by path."""

    def __init__(self) -> None:
        self.status: dict[str, int] = {}
        self.asked: Counter[str] = Counter()
        self.port = 0

    @asynccontextmanager
    async def serving(self):
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _answer(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1].decode()
        self.asked[path] += 1
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % self.status.get(path, 200))
        await writer.drain()
        writer.close()


class Crew:
    """All nodes: each works on what it gets; the playbook of `bad` ones fails."""

    def __init__(self, nodes) -> None:
        self.nodes = nodes
        self.bad: set[str] = set()
        self.worked: list[tuple[str, str]] = []
        self.at_once = 0
        self.most = 0

    async def work(self, node):
        while True:
            try:
                job = await node.claim(wait=20)
                if job is not None:
                    await self._work(node, job)
            except Unavailable:  # the server was killed: what is at hand is claimed again
                await asyncio.sleep(0.05)

    async def _work(self, node, job):
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if not job.resumed:
                self.worked.append((job.host, job.playbook))
            await asyncio.sleep(0.05)
        finally:
            self.at_once -= 1  # what the server does on hearing of the end may come before its answer
        bad = job.playbook == "site.yml" and job.host in self.bad
        await node.work(job, status="failed" if bad else "succeeded", code=2 if bad else 0)

    def ran(self, playbook="site.yml"):
        return [name for name, what in self.worked if what == playbook]


@asynccontextmanager
async def crew(server, join):
    async with AsyncExitStack() as stack:
        made = Crew([await stack.enter_async_context(join(server, name)) for name in NAMES])
        tasks = [asyncio.ensure_future(made.work(node)) for node in made.nodes]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def ended(client, job, *, within=60.0):
    deadline = time.monotonic() + within
    while (found := await jobs.show(client, job)).summary.ended is None:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return found


async def test_canary_first_and_each_batch_only_after_its_gate(server, join, submit):
    async with server.client() as admin, crew(server, join) as nodes, Health().serving() as health:
        health.status["/n0"] = 503
        gate = f"http://127.0.0.1:{health.port}/{{{{ node }}}}"
        rollout = Rollout(["1", "50%", "100%"], gate=gate, pause_s=0.3)
        number = (await submit(admin, rollout=rollout)).summary.id
        deadline = time.monotonic() + 60
        while health.asked["/n0"] < 1 or (waiting := await jobs.show(admin, number)).summary.waiting_for is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert nodes.ran() == ["n0"], "the canary alone"
        assert [batch.state for batch in waiting.batches] == ["gating", "waiting", "waiting"]
        assert waiting.summary.waiting_for.reason == "gate"
        health.status.clear()
        done = await ended(admin, number)
        assert done.summary.state == "succeeded"
        assert [batch.state for batch in done.batches] == ["passed"] * 3
        assert [len(batch.nodes) for batch in done.batches] == [1, 3, 2]
        assert sorted(nodes.ran()) == NAMES
        assert set(nodes.ran()[1:4]) == {"n1", "n2", "n3"}
        assert nodes.most <= 3
        steps = [(c.batch, c.after) for c in await job_control.history(admin, number) if c.what == "batch"]
        assert steps[:4] == [(1, "running"), (1, "gating"), (1, "pausing"), (1, "passed")]


async def test_a_rollout_stops_at_its_limit_and_is_rolled_back(server, join, submit):
    async with server.client() as admin, crew(server, join) as nodes:
        nodes.bad = {"n2"}
        rollout = Rollout(["1", "2", "100%"], max_failures="10%", rollback="rollback.yml")
        number = (await submit(admin, files=FILES, rollout=rollout)).summary.id
        done = await ended(admin, number)
        assert (done.summary.state, done.summary.exit_code) == ("failed", 2)
        assert done.message == "stopped at batch 2: 1 of 3 nodes failed"
        assert sorted(nodes.ran()) == ["n0", "n1", "n2"], "nothing begins beyond the limit"
        assert sorted(nodes.ran("rollback.yml")) == ["n0", "n1", "n2"], "back on all that ran"
        assert [batch.state for batch in done.batches] == ["passed", "failed", "skipped", "passed"]
        assert {host.state for host in done.hosts[3:]} == {"cancelled"}
        undone = await jobs.show(admin, done.batches[3].job)
        assert (undone.summary.origin, undone.summary.state) == (f"job:{number}", "succeeded")


async def test_a_gate_that_stays_ill_stops_it(server, join, submit):
    async with server.client() as admin, crew(server, join) as nodes, Health().serving() as health:
        health.status["/n0"] = 500
        gate = f"http://127.0.0.1:{health.port}/{{{{ node }}}}"
        number = (await submit(admin, rollout=Rollout(["1", "100%"], gate=gate, gate_timeout_s=0.5))).summary.id
        done = await ended(admin, number)
        assert done.summary.state == "failed"
        assert "not healthy in time: n0:" in done.message and "answered 500" in done.message
        assert nodes.ran() == ["n0"]


async def test_a_playbook_as_gate_and_a_server_killed_in_the_middle(server, join, submit):
    async with server.client() as admin, crew(server, join) as nodes:
        rollout = Rollout(["1", "2"], gate_playbook="check.yml")
        number = (await submit(admin, files=FILES, rollout=rollout)).summary.id
        for wanted in (1, 3):
            deadline = time.monotonic() + 60
            while len(nodes.ran()) < wanted:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            server.kill()
            await asyncio.to_thread(server.start)
        done = await ended(admin, number)
        assert done.summary.state == "succeeded"
        assert set(nodes.ran()) == set(nodes.ran("check.yml")) == set(NAMES)
        assert nodes.most <= 2
        assert len(await jobs.listing(admin)) == 1 + 4, "each batch is checked by one job"


async def test_what_a_rollout_needs_is_checked_before_it_is_queued(server, join, submit):
    async with server.client() as admin, join(server, "n0"):
        for rollout, said in [
            (Rollout(["1"], gate="ftp://{{ node }}/"), "no http"),
            (Rollout(["1"], gate="http://{{ nodes }}/"), "needs 'nodes'"),
            (Rollout(["1"], rollback="nowhere.yml"), "no playbook 'nowhere.yml'"),
            (Rollout(["1"], gate="http://x/", gate_playbook="check.yml"), "one gate"),
            (Rollout(["0"]), "never ends"),
        ]:
            with pytest.raises(InvalidInput, match=said):
                await submit(admin, files=FILES, rollout=rollout)
        assert await jobs.listing(admin) == []


async def test_a_cancelled_rollout_lets_nothing_more_run(server, join, submit):
    async with server.client() as admin, join(server, "n0") as node, join(server, "n1") as other:
        number = (await submit(admin, files=FILES, rollout=Rollout(["1"], rollback="rollback.yml"))).summary.id
        job = await node.claimed()
        await jobs.cancel(admin, number)
        await node.work(job, status="cancelled", code=1)
        done = await ended(admin, number)
        assert done.summary.state == "cancelled"
        assert {batch.state for batch in done.batches} == {"skipped"}
        assert await other.claim(wait=0.3) is None

"""One job on many nodes: each does it exactly once and all that they tell is there, whatever happens to the server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llmagentos.api import job_control, jobs
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Job, JobSpec
from support.fleet import EVENTS, SimulatedNode, bundle, enrol
from support.server import ServerProcess, eventually

pytestmark = pytest.mark.anyio

NODES = 60
WITHIN_S = 90.0
"""A few seconds on a quiet machine."""


@asynccontextmanager
async def working(fleet: list[SimulatedNode]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(node.run()) for node in fleet]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def to_all(server: ServerProcess, admin: ApiClient) -> tuple[list[SimulatedNode], int]:
    fleet = await enrol(admin, server.url, NODES)
    digest, content = bundle()
    await jobs.upload_bundle(admin, digest, content)
    return fleet, (await jobs.submit(admin, JobSpec(digest, "site.yml"))).summary.id


async def check(admin: ApiClient, fleet: list[SimulatedNode], job: int) -> None:
    """Every node ended it once, with all its events in their order, and the history says the same."""
    shown = await jobs.show(admin, job)
    assert shown.summary.state == "succeeded" and shown.summary.exit_code == 0
    assert Counter(host.state for host in shown.hosts) == {"succeeded": NODES}
    assert all(node.ended == {job: 1} for node in fleet)
    records = await jobs.events(admin, job)
    assert [record.id for record in records] == list(range(1, NODES * EVENTS + 1))
    for node in fleet:
        told = [record.event.seq for record in records if record.node == node.name]
        assert told == list(range(1, EVENTS + 1)), node.name
    history = [line for line in await job_control.history(admin, job) if line.what == "job"]
    assert [line.after for line in history] == ["queued", "running", "succeeded"]


async def test_each_node_does_a_job_once_and_a_follower_sees_all_of_it(server: ServerProcess) -> None:
    async with server.client() as admin:
        fleet, job = await to_all(server, admin)
        seen: list[int] = []
        last: Job | None = None
        async with working(fleet), asyncio.timeout(WITHIN_S), jobs.follow(admin, job) as items:
            async for item in items:
                if isinstance(item, Job):
                    last = item
                else:
                    seen.append(item.id)
            await eventually(lambda: all(node.ended for node in fleet))  # the last one has yet to hear that it is done
        assert last is not None and last.summary.state == "succeeded"
        assert seen == list(range(1, NODES * EVENTS + 1))
        await check(admin, fleet, job)


async def test_a_server_killed_in_the_middle_loses_nothing(server: ServerProcess) -> None:
    async with server.client() as admin:
        fleet, job = await to_all(server, admin)
    async with working(fleet), asyncio.timeout(WITHIN_S):
        while not any(node.ended for node in fleet):
            await asyncio.sleep(0.005)
        await asyncio.to_thread(server.kill)
        before = sum(sum(node.ended.values()) for node in fleet)
        assert before < NODES
        await asyncio.to_thread(server.start)
        while any(not node.ended for node in fleet):
            await asyncio.sleep(0.02)
    async with server.client() as admin:
        await check(admin, fleet, job)

"""The queue on every database that we run on, with nodes that write at the same time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llmagentos.api.jobs import Finish, JobSpec, LogLine, Recap, Stats
from llmagentos.api.nodes import Facts, Heartbeat
from llmagentos.cli.pack import pack
from llmagentos.core.clock import SystemClock
from llmagentos.core.events import Hub
from llmagentos.fleet.jobs import Jobs
from llmagentos.storage import tables
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import Database
from llmagentos.storage.jobs import JobRecords
from llmagentos.storage.nodes import NodeRecords

pytestmark = pytest.mark.anyio
NAMES = [f"n{i}" for i in range(5)]
BATCHES, BATCH = 6, 4
assert tables.METADATA is not None


@pytest.fixture
async def jobs(database_url: str, tmp_path: Path):
    database = Database(database_url)
    await database.create_all()
    clock = SystemClock()
    records = NodeRecords(database, clock)
    for name in NAMES:
        assert await records.add(name, Facts(name, "0.1"), place="", labels={})
        assert not await records.add(name, Facts(name, "0.1"), place="", labels={})
        assert None not in await records.beats([(name, Heartbeat(load=[1.0]))])
    yield Jobs(
        JobRecords(database, clock), Blobs(tmp_path / "blobs"), Hub(), clock, nodes=records.names, away=lambda _: False
    )
    await database.aclose()


async def submit(jobs: Jobs, directory: Path) -> int:
    directory.mkdir(exist_ok=True)
    (directory / "site.yml").write_text("- hosts: all\n  tasks: [{ping: }]\n")
    digest, content = pack(directory)
    await jobs.keep_bundle(digest, content)
    return (await jobs.submit(JobSpec(digest, "site.yml"), "me")).summary.id


async def test_nodes_write_at_once_and_nothing_is_lost(jobs: Jobs, tmp_path: Path):
    ids = [await submit(jobs, tmp_path / "play") for _ in range(2)]

    async def work(node: str) -> None:
        for expected in ids:
            job = (await jobs.queues.claim(node, wait=0)).job
            assert job is not None and job.job == expected
            for batch in range(BATCHES):
                first = 1 + batch * BATCH
                events = [LogLine(seq=seq, at=0.0, text="你好") for seq in range(first, first + BATCH)]
                await jobs.queues.append(node, job.job, job.fence, events)
                await jobs.queues.append(node, job.job, job.fence, events)
            last = BATCHES * BATCH + 1
            await jobs.queues.append(node, job.job, job.fence, [Recap(seq=last, at=0.0, hosts={node: Stats(ok=1)})])
            await jobs.queues.finish(node, job.job, Finish(job.fence, "succeeded", 0, Stats(ok=1)))

    async with asyncio.TaskGroup() as group:
        for name in NAMES:
            group.create_task(work(name))
    for job in ids:
        shown = await jobs.show(job)
        assert (shown.summary.state, shown.summary.exit_code) == ("succeeded", 0)
        records = await jobs.events(job, after=0, limit=1000)
        assert [record.id for record in records] == list(range(1, len(NAMES) * (BATCHES * BATCH + 1) + 1))
        for name in NAMES:
            numbers = [record.event.seq for record in records if record.node == name]
            assert numbers == list(range(1, BATCHES * BATCH + 2))
    assert await jobs.queue_lengths() == {}
    assert [record.id for record in await jobs.last_events(ids[0], limit=3)] == [123, 124, 125]


async def test_two_claims_at_once_leave_one_good_fence(jobs: Jobs, tmp_path: Path):
    await submit(jobs, tmp_path / "play")
    taken = [claimed.job for claimed in await asyncio.gather(*(jobs.queues.claim("n0", wait=0) for _ in range(4)))]
    good = 0
    for job in taken:
        assert job is not None
        try:
            await jobs.queues.renew("n0", job.job, job.fence)
            good += 1
        except Exception as error:
            assert "lease" in str(error)
    assert good == 1
    newest = max(job.fence for job in taken if job is not None)
    await jobs.queues.finish("n0", 1, Finish(newest, "succeeded", 0))

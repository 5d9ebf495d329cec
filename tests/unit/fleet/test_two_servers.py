"""Two servers on one database answer one node: the token that is stored with the job decides, whoever gave it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llmagentos.api.jobs import Finish, JobSpec, LogLine
from llmagentos.cli.pack import pack
from llmagentos.core.clock import ManualClock
from llmagentos.core.events import Hub
from llmagentos.fleet.job_queues import LEASE_S
from llmagentos.fleet.jobs import Jobs
from llmagentos.kernel.leases import LeaseLost
from llmagentos.storage import tables
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import Database
from llmagentos.storage.jobs import JobRecords

assert tables.METADATA is not None


@asynccontextmanager
async def two(root: Path, clock: ManualClock | None = None) -> AsyncIterator[tuple[Jobs, Jobs]]:
    """Both with a job for the node `a`."""
    database, clock, blobs = Database(f"sqlite:///{root / 'db'}"), clock or ManualClock(), Blobs(root / "blobs")

    async def nodes() -> list[str]:
        return ["a"]

    (root / "play").mkdir()
    (root / "play" / "site.yml").write_text("- hosts: all\n  tasks: [{ping: }]\n")
    digest, content = pack(root / "play")
    await database.create_all()
    await blobs.put(digest, content)
    made = [Jobs(JobRecords(database, clock), blobs, Hub(), clock, nodes=nodes, away=lambda _: False) for _ in "12"]
    await made[0].submit(JobSpec(digest, "site.yml"), "me")
    try:
        yield made[0], made[1]
    finally:
        await database.aclose()


def event(seq: int) -> LogLine:
    return LogLine(seq=seq, at=1.0, text=f"line {seq}")


def test_a_node_may_go_on_at_the_other_server(tmp_path: Path):
    async def main() -> None:
        async with two(tmp_path) as (one, other):
            job = (await one.queues.claim("a", wait=0)).job
            assert job is not None
            assert (await other.queues.renew("a", job.job, job.fence)).next_seq == 1
            assert (await other.queues.append("a", job.job, job.fence, [event(1)])).next_seq == 2
            assert (await one.queues.append("a", job.job, job.fence, [event(2)])).next_seq == 3
            await other.queues.finish("a", job.job, Finish(job.fence, "succeeded", 0))
            await one.queues.finish("a", job.job, Finish(job.fence, "succeeded", 0))  # the answer was lost
            assert (await one.show(job.job)).summary.state == "succeeded"

    asyncio.run(main())


def test_a_token_that_was_replaced_at_the_other_server_is_refused(tmp_path: Path):
    """A node agent that hangs, and the one that took its place: the first is refused wherever it asks."""

    async def main() -> None:
        async with two(tmp_path) as (one, other):
            old = (await one.queues.claim("a", wait=0)).job
            new = (await other.queues.claim("a", wait=0)).job
            assert old is not None and new is not None and new.resumed
            assert new.fence > old.fence
            for jobs in (one, other):
                with pytest.raises(LeaseLost):
                    await jobs.queues.renew("a", old.job, old.fence)
                with pytest.raises(LeaseLost):
                    await jobs.queues.append("a", old.job, old.fence, [event(1)])
                with pytest.raises(LeaseLost):
                    await jobs.queues.finish("a", old.job, Finish(old.fence, "failed", 2))
            await other.queues.append("a", new.job, new.fence, [event(1)])
            await other.queues.finish("a", new.job, Finish(new.fence, "succeeded", 0))
            found = await one.show(new.job)
            assert found.summary.state == "succeeded"
            assert [record.event.text for record in await one.events(new.job, after=0, limit=9)] == ["line 1"]

    asyncio.run(main())


def test_who_answered_long_ago_answers_again(tmp_path: Path):
    """What one server alone heard for long makes the other refuse nothing; neither does silence."""
    clock = ManualClock()

    async def main() -> None:
        async with two(tmp_path, clock) as (one, other):
            job = (await one.queues.claim("a", wait=0)).job
            assert job is not None
            for _ in range(4):
                clock.advance(LEASE_S - 1)
                await other.queues.renew("a", job.job, job.fence)
            assert (await one.queues.renew("a", job.job, job.fence)).next_seq == 1
            clock.advance(10 * LEASE_S)
            assert (await one.queues.append("a", job.job, job.fence, [event(1)])).next_seq == 2
            await one.queues.finish("a", job.job, Finish(job.fence, "succeeded", 0))
            for jobs in (one, other):
                with pytest.raises(LeaseLost):
                    await jobs.queues.require("a", job.job, job.fence)

    asyncio.run(main())


def test_two_servers_asked_at_once_give_different_tokens(tmp_path: Path):
    async def main() -> None:
        async with two(tmp_path) as (one, other):
            claims = await asyncio.gather(*(jobs.queues.claim("a", wait=0) for jobs in (one, other) * 5))
            fences = [claim.job.fence for claim in claims if claim.job is not None]
            assert len(fences) == len(set(fences)) == 10
            held = []
            for fence in fences:
                try:
                    await one.queues.renew("a", 1, fence)
                except LeaseLost:
                    continue
                held.append(fence)
            assert held == [max(fences)], "the last one alone counts"

    asyncio.run(main())

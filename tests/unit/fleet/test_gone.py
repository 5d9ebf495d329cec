"""A node whose identity ends while its requests wait."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from pathlib import Path

import pytest

from llmagentos.api.jobs import JobSpec
from llmagentos.api.nodes import Facts
from llmagentos.cli.pack import pack
from llmagentos.core.clock import ManualClock, SystemClock
from llmagentos.core.errors import Unauthenticated
from llmagentos.core.events import Hub
from llmagentos.fleet.job_news import GONE
from llmagentos.fleet.jobs import Jobs
from llmagentos.fleet.plays import Plays
from llmagentos.storage import tables
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import Database
from llmagentos.storage.jobs import JobRecords
from llmagentos.storage.nodes import NodeRecords

assert tables.METADATA is not None
FACTS = Facts(hostname="a", version="1")


async def heard(hub: Hub, topic: str) -> None:
    """Until somebody listens to `topic`."""
    async with asyncio.timeout(20):
        while topic not in hub._topics:
            await asyncio.sleep(0.001)


def packed(directory: Path) -> tuple[str, bytes]:
    directory.mkdir()
    (directory / "site.yml").write_text("- hosts: all\n  tasks: [{ping: }]\n")
    return pack(directory)


def test_what_waits_in_its_name_ends_at_once(tmp_path: Path):
    async def main() -> None:
        database, clock, hub = Database("sqlite:///:memory:"), SystemClock(), Hub()
        await database.create_all()

        async def nodes() -> list[str]:
            return ["a"]

        records = JobRecords(database, clock)
        jobs = Jobs(records, Blobs(tmp_path / "blobs"), hub, clock, nodes=nodes, away=lambda _: False)
        plays = Plays(records.shares, hub, clock)

        async def ends(work: Coroutine[object, object, object]) -> None:
            waiting = asyncio.ensure_future(work)
            await heard(hub, "queue:a")
            hub.publish("queue:a", GONE)
            with pytest.raises(Unauthenticated, match="node 'a' was ended"):
                async with asyncio.timeout(20):
                    await waiting

        await ends(jobs.queues.claim("a", wait=60))
        digest, content = packed(tmp_path / "play")
        await jobs.keep_bundle(digest, content)
        await jobs.submit(JobSpec(digest, "site.yml"), "me")
        held = (await jobs.queues.claim("a", wait=0)).job
        assert held is not None
        await ends(plays.shared("a", held.job, held.fence, after=0, gone=0, wait=60))
        await database.aclose()

    asyncio.run(main())


def test_a_revoked_node_is_given_nothing_new(tmp_path: Path):
    """Also where another server ended its identity, so that nobody here was told."""

    async def main() -> None:
        database, clock = Database("sqlite:///:memory:"), ManualClock()
        await database.create_all()
        machines = NodeRecords(database, clock)
        digest, content = packed(tmp_path / "play")

        async def nodes() -> list[str]:
            return ["a"]

        async def closed(names: Sequence[str]) -> Collection[str]:
            return await machines.not_open(names)

        await machines.add("a", FACTS, place="", labels={})
        blobs = Blobs(tmp_path / "blobs")
        await blobs.put(digest, content)
        jobs = Jobs(JobRecords(database, clock), blobs, Hub(), clock, nodes=nodes, away=lambda _: False, closed=closed)
        await machines.revoke("a")
        await jobs.submit(JobSpec(digest, "site.yml"), "me")
        assert (await jobs.queues.claim("a", wait=0)).job is None
        assert await machines.rejoin("a", FACTS, place="")
        assert not await machines.rejoin("a", FACTS, place=""), "one machine, not two"
        assert (await jobs.queues.claim("a", wait=0)).job is not None
        await database.aclose()

    asyncio.run(main())

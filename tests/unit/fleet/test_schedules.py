"""Schedules on a real database: what a server that comes late, or whose neighbour fails, may and may not do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import insert

from llmagentos.api.jobs import Job, JobSpec
from llmagentos.api.schedules import ScheduleSpec, TemplateUse
from llmagentos.cli.pack import pack
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import InvalidInput
from llmagentos.core.events import Hub
from llmagentos.fleet.jobs import Jobs
from llmagentos.fleet.schedules import RETRY_S, Schedules
from llmagentos.storage import tables
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import Database
from llmagentos.storage.jobs import JobRecords
from llmagentos.storage.schedules import FIRES, ScheduleRecords

assert tables.METADATA is not None
USE = ScheduleSpec(every_s=60.0, template=TemplateUse("deploy"))


@asynccontextmanager
async def stored() -> AsyncIterator[tuple[Database, ScheduleRecords, ManualClock]]:
    database, clock = Database("sqlite:///:memory:"), ManualClock()
    await database.create_all()
    try:
        yield database, ScheduleRecords(database, clock), clock
    finally:
        await database.aclose()


def test_a_server_that_looked_long_ago_fires_nothing_older():
    async def main() -> None:
        async with stored() as (_, records, clock):
            await records.add("s", USE, "me")
            seen = (await records.all())[0]  # by a server that is then held up
            first, second = seen.since + 60, seen.since + 120
            clock.advance(121)
            assert await records.claim(seen, second, done=second)
            assert not await records.claim(seen, first, done=first), "done with: the later one was the last"
            assert not await records.claim(seen, second, done=second)
            await records.prune(days=0.0)
            assert not await records.claim(seen, first, done=first), "not even when the history is gone"
            assert [fire.due for fire in await records.fires("s", limit=9)] == [second]

    asyncio.run(main())


def test_times_of_a_schedule_that_was_made_anew_are_not_taken_for_the_old_one():
    async def main() -> None:
        async with stored() as (_, records, clock):
            await records.add("s", USE, "me")
            old = (await records.all())[0]
            clock.advance(30)
            await records.remove("s")
            await records.add("s", ScheduleSpec(every_s=60.0, template=TemplateUse("other")), "me")
            clock.advance(31)
            assert not await records.claim(old, old.since + 60, done=old.since + 60)
            assert await records.fires("s", limit=9) == []

    asyncio.run(main())


def test_what_was_resumed_meanwhile_makes_up_for_nothing():
    async def main() -> None:
        async with stored() as (_, records, clock):
            await records.add("s", USE, "me")
            seen = (await records.all())[0]
            clock.advance(90)
            await records.pause("s", "me", paused=True)
            await records.pause("s", "me", paused=False)
            assert not await records.claim(seen, seen.since + 60, done=seen.since + 60)

    asyncio.run(main())


def test_bundles_of_however_many_times_are_kept():
    async def main() -> None:
        async with stored() as (database, records, _):
            spec = ScheduleSpec(every_s=60.0, job=JobSpec("a" * 64, "site.yml"))
            last = ScheduleSpec(every_s=60.0, job=JobSpec("b" * 64, "site.yml"))
            row = {"schedule": "s", "open": True}
            async with database.write() as connection:
                rows = [
                    {**row, "due": float(n), "at": float(n), "spec": msgspec.json.encode(each).decode()}
                    for n, each in enumerate([*[spec] * 1001, last])
                ]
                await connection.execute(insert(FIRES), rows)
            assert await records.bundles() == {"a" * 64, "b" * 64}

    asyncio.run(main())


def test_one_schedule_that_cannot_be_looked_after_holds_up_no_other(tmp_path: Path):
    (tmp_path / "play").mkdir()
    (tmp_path / "play" / "site.yml").write_text("- hosts: all\n  tasks: [{ping: }]\n")
    digest, content = pack(tmp_path / "play")

    async def nodes() -> list[str]:
        return ["a"]

    async def broken(*_: object) -> Job:
        raise RuntimeError("a fault of ours")

    async def fits(*_: object) -> None:
        return None

    async def main() -> None:
        async with stored() as (database, records, clock):
            hub, blobs = Hub(), Blobs(tmp_path / "blobs")
            await blobs.put(digest, content)
            jobs = Jobs(JobRecords(database, clock), blobs, hub, clock, nodes=nodes, away=lambda _: False)
            schedules = Schedules(records, jobs, hub, clock, launch=broken, check=fits, bundle_of=fits)
            await schedules.add("a-bad", USE, "me")
            good = ScheduleSpec(every_s=60.0, job=JobSpec(digest, "site.yml"))
            await schedules.add("b-good", good, "me")
            clock.advance(61)
            await schedules.look()
            assert (await schedules.show("b-good")).fires[0].job == 1
            clock.advance(RETRY_S + 1)
            await schedules.look()  # what it took and could not do is not forgotten
            assert [fire.schedule for fire in await records.unsettled(limit=9)] == ["a-bad"]
            for late in (ScheduleSpec(cron="*/5 * * * *", jitter_s=300, job=good.job), good):
                wanted = msgspec.structs.replace(late, jitter_s=max(60.0, late.jitter_s))
                with pytest.raises(InvalidInput, match="jitter"):
                    await schedules.add("c", wanted, "me")

    asyncio.run(main())

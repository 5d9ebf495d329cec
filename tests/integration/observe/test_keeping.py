"""What is kept of samples and lines: gathered into rollups once, however late they come, and for a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from llmagentos.api.telemetry import Batch, Line, Sample
from llmagentos.core.clock import ManualClock
from llmagentos.core.events import Hub
from llmagentos.observe.telemetry import DAY, Keep, Telemetry
from llmagentos.storage.database import Database
from llmagentos.storage.telemetry import TelemetryRecords

pytestmark = pytest.mark.anyio
BEGIN = 1_800_000_000.0 // DAY * DAY
KEEP = Keep(samples=1, five_minutes=14, hours=400, logs=7, lines=10)


class Scene:
    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.records = TelemetryRecords(database)
        self.clock = clock
        self.telemetry = Telemetry(self.records, Hub(), clock, KEEP)
        self._number = 0

    async def put(self, at: float, value: float, *lines: str) -> None:
        self._number += 1
        samples = [Sample(at, {"g": value, "x_total": value * 10})]
        await self.records.add([("n1", Batch("s", self._number, samples, [Line(at, "app", text) for text in lines]))])

    async def roll(self) -> None:
        upto = await self.records.highest()
        while await self.telemetry.roll_up(upto):
            pass

    async def means(self, since: float, until: float, points: int) -> list[tuple[float, float]]:
        found = await self.telemetry.series("n1", match="g", since=since, until=until, points=points)
        return [(point.at - BEGIN, point.value) for series in found for point in series.points]


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    database = Database(database_url)
    await database.create_all()
    yield Scene(database, ManualClock(wall=BEGIN + 2 * DAY))
    await database.aclose()


async def test_every_sample_counts_once_in_both_steps(scene: Scene) -> None:
    for number in range(40):  # ten minutes, every 15 s
        await scene.put(BEGIN + number * 15, float(number))
        if number in (7, 25):
            await scene.roll()
    await scene.roll()
    await scene.put(BEGIN + 7.5, 100.0)  # late: its five minutes were gathered before
    expected = [(0.0, pytest.approx((sum(range(20)) + 100) / 21)), (300.0, pytest.approx(29.5))]
    assert await scene.means(BEGIN, BEGIN + 600, 2) == expected  # not gathered yet
    await scene.roll()
    assert await scene.means(BEGIN, BEGIN + 600, 2) == expected
    hour = [(0.0, pytest.approx((sum(range(40)) + 100) / 41))]
    assert await scene.means(BEGIN - DAY, BEGIN + DAY, 3) == hour


async def test_what_is_old_goes_and_rollups_stay(scene: Scene) -> None:
    for day in range(3):
        await scene.put(BEGIN + day * DAY, float(day), *(f"{day}.{number}" for number in range(8)))
    await scene.roll()
    scene.clock.wall = BEGIN + 2 * DAY + 3600
    await scene.telemetry.prune()
    assert [sample.at for sample in await scene.records.samples("n1", since=0, until=2e9)] == [BEGIN + 2 * DAY]
    lines = await scene.records.lines("n1", source="a*", text=None, since=None, limit=100)
    assert [line.text for line in lines] == [f"1.{n}" for n in (6, 7)] + [f"2.{n}" for n in range(8)]
    assert [value for _, value in await scene.means(BEGIN, BEGIN + 2 * DAY + 60, 10)] == [0.0, 1.0, 2.0]
    await scene.telemetry.keep_only(["n1"])
    assert await scene.means(BEGIN, BEGIN + 2 * DAY + 60, 10) != []
    await scene.telemetry.keep_only(["n2"])
    assert await scene.means(BEGIN, BEGIN + 2 * DAY + 60, 10) == []


async def test_lines_are_found_by_text_as_it_is_written(scene: Scene) -> None:
    await scene.put(BEGIN, 1.0, "100% full", "磁盘已满 disk", "ERROR_x", "ERRORyx", "nul \0 byte")
    found = {}
    for text in ("100%", "磁盘", "error_x", "byte"):
        lines = await scene.records.lines("n1", source=None, text=text, since=None, limit=10)
        found[text] = [line.text for line in lines]
    assert found == {"100%": ["100% full"], "磁盘": ["磁盘已满 disk"], "error_x": ["ERROR_x"], "byte": ["nul  byte"]}


async def test_batches_at_once_are_stored_together_and_an_error_reaches_all(scene: Scene) -> None:
    storing = asyncio.create_task(scene.telemetry.store())
    try:
        batches = [Batch("s", 1, [Sample(BEGIN + node, {"g": 1.0})]) for node in range(50)]
        await asyncio.gather(*(scene.telemetry.take(f"n{node}", batch) for node, batch in enumerate(batches)))
        assert len(await scene.records.newest()) == 50
        again = await asyncio.gather(*(scene.telemetry.take(f"n{node}", batch) for node, batch in enumerate(batches)))
        assert again == [None] * 50
        assert len(await scene.records.after(0, upto=10**9, limit=1000)) == 50
    finally:
        storing.cancel()

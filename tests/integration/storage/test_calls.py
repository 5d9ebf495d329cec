"""Metered calls in storage: newest first, by run, and no longer than they should be kept."""

from __future__ import annotations

import asyncio

from llmagentos.api.llm import CallInfo
from llmagentos.core.clock import ManualClock
from llmagentos.storage.calls import CallRecords
from llmagentos.storage.database import Database


def call(number: int, at: float, run_id: str | None = None) -> CallInfo:
    return CallInfo(
        f"c{number}",
        at,
        "m",
        "openai",
        "chat",
        "admin:me" * 60,
        "failed",
        3,
        4,
        0.1,
        2.0,
        0.5,
        run_id,
        "\0" + "x" * 900,
    )


def test_calls_are_found_and_pruned(database_url: str) -> None:
    async def main() -> None:
        database = Database(database_url)
        await database.create_all()
        clock = ManualClock(wall=1_000_000.0)
        records = CallRecords(database, clock, days=1)
        await records.add([call(1, clock.wall - 90_000, "old"), call(2, clock.wall - 10, "r"), call(3, clock.wall)])
        await records.add([call(3, clock.wall)])  # a batch whose answer was lost comes again
        assert [c.id for c in await records.newest(2)] == ["c3", "c2"]
        (mine,) = await records.newest(10, run_id="r")
        assert (mine.ttft_s, mine.tokens_out, mine.status) == (0.5, 4, "failed")
        assert (len(mine.error or ""), len(mine.caller)) == (500, 300)
        assert await records.prune() == 1
        assert [c.id for c in await records.newest(9)] == ["c3", "c2"]
        await database.aclose()

    asyncio.run(main())

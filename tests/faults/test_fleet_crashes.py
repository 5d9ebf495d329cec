"""`kill -9` of server and node agents at random moments: every job ends in the right state, no task runs twice.

`LLMAGENTOS_KILLS` says how often; `make soak` does it 100 times.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from support.fleet_fire import FleetRange

KILLS = int(os.environ.get("LLMAGENTOS_KILLS", "3"))
SEED = int(os.environ.get("LLMAGENTOS_TEST_SEED", "0")) or random.randrange(1, 10**6)


@pytest.mark.timeout(240 + 10 * KILLS)
def test_every_job_ends_as_it_should_whatever_is_killed(tmp_path: Path, new_database: Callable[[], str | None]) -> None:
    fire = FleetRange(tmp_path, SEED, database=new_database())

    async def main() -> None:
        await fire.fire(KILLS)
        report = await fire.judge()
        assert report.wrong == [], f"seed {SEED}: {report}\n{fire.server.log()[-3000:]}"

    try:
        fire.start()
        asyncio.run(main())
    finally:
        fire.stop()

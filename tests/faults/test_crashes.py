"""`kill -9` of server, module or engine at random moments: every run ends the same, nothing settled is done again.

`LLMAGENTOS_KILLS` says how often; `make soak` does it 200 times.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from support.crashing import Range

KILLS = int(os.environ.get("LLMAGENTOS_KILLS", "6"))
SEED = int(os.environ.get("LLMAGENTOS_TEST_SEED", "0")) or random.randrange(1, 10**6)


@pytest.mark.timeout(120 + 10 * KILLS)
def test_every_run_ends_the_same_whatever_is_killed(tmp_path: Path, new_database: Callable[[], str | None]) -> None:
    fire = Range(tmp_path, SEED, database=new_database())

    async def main() -> None:
        await fire.fire(KILLS)
        report = await fire.judge()
        assert report.wrong == [], f"seed {SEED}: {report}\n{fire.server.log()[-3000:]}"
        assert report.runs == 3 * KILLS

    try:
        fire.start()
        asyncio.run(main())
    finally:
        fire.stop()

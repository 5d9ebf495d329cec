"""How a soak goes: processes are started, killed at random moments, and judged."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


class Report(Protocol):
    """What came of it; its text is a line."""

    wrong: list[str]


class Range(Protocol):
    """What is under fire."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    async def fire(self, kills: int, told: Callable[[str], None]) -> None: ...
    async def judge(self) -> Report: ...


def soak(make: Callable[[Path, int], Range], kills: int) -> int:
    """Fire `LLMAGENTOS_KILLS` (else `kills`) times, print what came of it; the exit code, 1 with faults."""
    kills = int(os.environ.get("LLMAGENTOS_KILLS", kills))
    seed = int(os.environ.get("LLMAGENTOS_TEST_SEED", "0")) or random.randrange(1, 10**6)
    print(f"seed {seed}, {kills} kills", flush=True)
    with tempfile.TemporaryDirectory(prefix="llmagentos-soak-") as directory:
        fire = make(Path(directory), seed)
        begun = time.monotonic()
        try:
            fire.start()
            asyncio.run(
                fire.fire(kills, lambda text: print(f"  {text} after {time.monotonic() - begun:.0f} s", flush=True))
            )
            report = asyncio.run(fire.judge())
        finally:
            fire.stop()
        print(report)
        for fault in report.wrong[:20]:
            print(f"  {fault}")
        if report.wrong:
            for log in sorted(Path(directory).glob("*.log")) + sorted(Path(directory).glob("*/*.log")):
                print(f"--- the end of {log.name}\n{log.read_text(errors='replace')[-5000:]}")
    return 1 if report.wrong else 0

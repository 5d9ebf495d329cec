"""Runs under fire for long: `LLMAGENTOS_KILLS` (200) times `kill -9` of server, module or engine at a random moment.

Prints what was killed and what came of the runs; ends with 1 when a run ended differently, a settled tool call was
made again, or the budget is not the sum of the calls.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.crashing import Range

KILLS = int(os.environ.get("LLMAGENTOS_KILLS", "200"))
SEED = int(os.environ.get("LLMAGENTOS_TEST_SEED", "0")) or random.randrange(1, 10**6)


def main() -> int:
    """The exit code."""
    print(f"seed {SEED}, {KILLS} kills", flush=True)
    with tempfile.TemporaryDirectory(prefix="llmagentos-soak-") as directory:
        fire = Range(Path(directory), SEED)
        begun = time.monotonic()
        try:
            fire.start()
            asyncio.run(
                fire.fire(KILLS, lambda text: print(f"  {text} after {time.monotonic() - begun:.0f} s", flush=True))
            )
            report = asyncio.run(fire.judge())
        finally:
            fire.stop()
    print(report)
    for fault in report.wrong[:20]:
        print(f"  {fault}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

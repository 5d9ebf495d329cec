"""Jobs under fire for long: `LLMAGENTOS_KILLS` (100) times `kill -9` of server and node agents at a random moment.

Prints what was killed and what came of the jobs; ends with 1 when a job did not end as it should, an event is missing,
or a task ran twice.
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

from support.fleet_fire import FleetRange

KILLS = int(os.environ.get("LLMAGENTOS_KILLS", "100"))
SEED = int(os.environ.get("LLMAGENTOS_TEST_SEED", "0")) or random.randrange(1, 10**6)


def main() -> int:
    """The exit code."""
    print(f"seed {SEED}, {KILLS} kills", flush=True)
    with tempfile.TemporaryDirectory(prefix="llmagentos-soak-") as directory:
        fire = FleetRange(Path(directory), SEED)
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
        if report.wrong:
            for process in (fire.server, *fire.nodes.values()):
                print(f"--- the end of its log: {process.directory.name}\n{process.log()[-5000:]}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

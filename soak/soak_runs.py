"""Runs under fire for long: `LLMAGENTOS_KILLS` (200) times `kill -9` of server, module or engine at a random moment.

Prints what was killed and what came of the runs; ends with 1 when a run ended differently, a settled tool call was
made again, or the budget is not the sum of the calls.
"""

from __future__ import annotations

import sys

from under_fire import soak

from support.crashing import Range

if __name__ == "__main__":
    sys.exit(soak(Range, 200))

"""Jobs under fire for long: `LLMAGENTOS_KILLS` (100) times `kill -9` of server and node agents at a random moment.

Prints what was killed and what came of the jobs; ends with 1 when a job did not end as it should, an event is missing,
or a task ran twice.
"""

from __future__ import annotations

import sys

from under_fire import soak

from support.fleet_fire import FleetRange

if __name__ == "__main__":
    sys.exit(soak(FleetRange, 100))

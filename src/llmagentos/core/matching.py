"""Regular expressions that others wrote, tried in a process of its own with a second of processor time.

Python's `re` backtracks: some patterns take years for some texts, and nothing else of this process would run meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import sys

CPU_S = 1
PATIENCE_S = 60.0
"""By the clock, for a machine that is busy."""
_TRIED = f"""\
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({CPU_S}, {CPU_S}))
how, regex, text = json.load(sys.stdin)
sys.exit(0 if getattr(re, how)(regex, text) else 3)
"""


class TooSlow(Exception):
    """It took too long."""


def matches(regex: str, text: str, *, whole: bool = True) -> bool:
    """Whether `text`, or without `whole` a part of it, matches `regex`, which is one. Blocks. Raises `TooSlow`."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRIED],
            input=json.dumps(["fullmatch" if whole else "search", regex, text]).encode(),
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TooSlow(regex) from None
    if done.returncode not in (0, 3):
        raise TooSlow(regex)
    return done.returncode == 0

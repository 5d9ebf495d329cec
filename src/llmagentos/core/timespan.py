"""Spans of time as people write them: `90s`, `30m`, `12h`, `7d`, `2w`."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_MOST_S = timedelta(days=36500).total_seconds()


def seconds(text: str) -> float | None:
    """Seconds above 0, a number alone is seconds; None for what is no span of time."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text, re.ASCII)
    value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    return value if 0 < value <= _MOST_S else None


def written(value: float) -> str:
    """Seconds in the greatest unit that divides them: `600` is `10m`."""
    for unit in ("w", "d", "h", "m"):
        if value and value % _UNITS[unit] == 0:
            return f"{value / _UNITS[unit]:.0f}{unit}"
    return f"{value:g}s"

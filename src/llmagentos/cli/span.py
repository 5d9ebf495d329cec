"""A span of time as people type it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import click

from llmagentos.core.i18n import tr

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Span(click.ParamType[float]):
    """A span of time such as 90s, 30m, 12h or 7d, as seconds; a number alone is seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds above 0. Fails with what was expected."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", str(value), re.ASCII)
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if not 0 < seconds <= timedelta(days=36500).total_seconds():
            self.fail(tr("{value} is no span of time: write 90s, 30m, 12h or 7d", value=repr(value)), param, ctx)
        return seconds

"""A span of time as people type it."""

from __future__ import annotations

from typing import Any

import click

from llmagentos.core import timespan
from llmagentos.core.i18n import tr


class Span(click.ParamType[float]):
    """A span of time such as 90s, 30m, 12h or 7d, as seconds; a number alone is seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds above 0. Fails with what was expected."""
        found = timespan.seconds(str(value))
        if found is None:
            self.fail(tr("{value} is no span of time: write 90s, 30m, 12h or 7d", value=repr(value)), param, ctx)
        return found

"""Times of cron expressions in a time zone, as Debian's cron means them when clocks change.

What falls into the hour that is left out in spring fires right after it; what falls into the hour that
comes twice in autumn fires once. Expressions with a star for minute or hour go by the real time that
passes. Five fields, or six with seconds first.
"""

from __future__ import annotations

import datetime
import math
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from llmagentos.core.errors import InvalidInput


def zone_of(name: str) -> ZoneInfo:
    """The time zone `Europe/Berlin`, `UTC`... Raises `InvalidInput`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(
            f"there is no time zone {name[:80]!r} on the server", hint="a name of the IANA data, like Europe/Berlin"
        ) from None


def check(expression: str, zone: str) -> None:
    """Raises `InvalidInput` for what is no cron expression, never fires, or has no such zone."""
    try:
        found = next(CronSim(expression, datetime.datetime(2026, 1, 1, tzinfo=zone_of(zone))), None)
    except (CronSimError, ValueError) as error:
        raise InvalidInput(
            f"{expression[:80]!r} is no cron expression: {str(error) or 'malformed'}",
            hint="minute hour day-of-month month day-of-week, like '30 2 * * MON-FRI'",
        ) from None
    if found is None:
        raise InvalidInput(f"the cron expression {expression[:80]!r} never fires")


def following(expression: str, zone: str, after: float) -> float | None:
    """The first time after `after`; None when there is none within 50 years."""
    begin = datetime.datetime.fromtimestamp(math.floor(after), zone_of(zone))
    found = next(CronSim(expression, begin), None)
    return found.timestamp() if found is not None else None


def latest(expression: str, zone: str, until: float, *, since: float) -> float | None:
    """The last time up to `until` and after `since`; None without one."""
    begin = datetime.datetime.fromtimestamp(math.floor(until) + 1, zone_of(zone))
    found = next(CronSim(expression, begin, reverse=True), None)
    return found.timestamp() if found is not None and found.timestamp() > since else None

"""When a schedule is due: pure, from its spec, what is done with, and the wall clock.

Of several times that went by, the last one counts: at most one job is made up for.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise

from llmagentos.api.schedules import ScheduleSpec
from llmagentos.fleet import cron

GRACE_S = 60.0
"""A time that is so little ago is no time that was missed: a server was restarted."""
_ROUNDING_S = 1e-3
_LOOKED_AT = 60
_TRIES = 200
"""Times back from now whose jitter may not be over."""


@dataclass(frozen=True, slots=True)
class Due:
    """`fire`: a job is to be made for this time; `done`: times up to this one are done with."""

    done: float
    fire: float | None = None


def following(spec: ScheduleSpec, anchor: float, after: float) -> float | None:
    """The first time after `after`; `anchor` is when the schedule was made."""
    if spec.cron is not None:
        return cron.following(spec.cron, spec.zone, after)
    assert spec.every_s is not None
    return anchor + (max(0, _count(spec.every_s, after - anchor)) + 1) * spec.every_s


def latest(spec: ScheduleSpec, anchor: float, until: float, *, since: float) -> float | None:
    """The last time up to `until` and after `since`."""
    if spec.cron is not None:
        return cron.latest(spec.cron, spec.zone, until, since=since)
    assert spec.every_s is not None
    count = _count(spec.every_s, until - anchor)
    return anchor + count * spec.every_s if count > max(0, _count(spec.every_s, since - anchor)) else None


def _count(every: float, passed: float) -> int:
    """Whole intervals in `passed`, for which a time that is a rounding error short is there."""
    return math.floor((passed + _ROUNDING_S) / every)


def jitter(name: str, due: float, most: float) -> float:
    """How late the time `due` is: the same wherever it is asked."""
    if not most:
        return 0.0
    drawn = int.from_bytes(hashlib.sha256(f"{name} {due}".encode()).digest()[:8])
    return most * drawn / 2**64


def due(name: str, spec: ScheduleSpec, anchor: float, *, since: float, now: float) -> Due | None:
    """What is to be done now; None for nothing. Times up to `since` are done with."""
    found = latest(spec, anchor, now, since=since)
    for _ in range(_TRIES):
        if found is None:
            return None
        late = now - found - jitter(name, found, spec.jitter_s)
        if late >= 0:
            return Due(found, found if late <= GRACE_S or spec.catch_up == "last" else None)
        found = latest(spec, anchor, found - 0.5, since=since)
    return None


def least_gap(spec: ScheduleSpec, now: float) -> float:
    """The least time between two of the next times: with a longer jitter one would pass another and drop it."""
    if spec.every_s is not None:
        return spec.every_s
    times = upcoming(spec, now, now, _LOOKED_AT)
    return min((later - earlier for earlier, later in pairwise(times)), default=math.inf)


def upcoming(spec: ScheduleSpec, anchor: float, now: float, count: int) -> list[float]:
    """The next `count` times, without their jitter."""
    found: list[float] = []
    moment = following(spec, anchor, now)
    while moment is not None and len(found) < count:
        found.append(moment)
        moment = following(spec, anchor, moment)
    return found

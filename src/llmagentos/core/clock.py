"""Time as a parameter: wall time for people, monotonic time for every decision.

A wall clock may jump (NTP, suspend, an operator); leases, timeouts and backoffs therefore use
`monotonic()` only, and `time()` is for what is shown or stored.
"""

from __future__ import annotations

import datetime
import time
from typing import Protocol


class Clock(Protocol):
    """What deciding code may know of time."""

    def time(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told: for tests and simulation."""

    def __init__(self, *, wall: float = 1_700_000_000.0, monotonic: float = 0.0) -> None:
        self.wall = wall
        self.steady = monotonic

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        self.wall += seconds
        self.steady += seconds


def local(moment: float, *, milliseconds: bool = False) -> str:
    """Wall-clock time in this machine's zone, with that zone's offset then: `2026-01-31 14:05:09+08:00` (RFC 3339).

    With an offset it says the same to everybody who reads it elsewhere, in a ticket or a chat; a zone's short name
    would not (CST is China's and Chicago's).
    """
    found = datetime.datetime.fromtimestamp(moment).astimezone()
    return found.isoformat(sep=" ", timespec="milliseconds" if milliseconds else "seconds")

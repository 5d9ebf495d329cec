"""When a model of this machine is in memory: loaded when it is called, kept for a while, dropped when nobody calls.

One that should be in memory has a generation, a number that grows with each time it is loaded: what is
seen of the process of an earlier one counts for nothing, however late it is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

State = Literal["unloaded", "loading", "ready", "failed"]
Event = Literal["want", "drop", "starts", "works", "fails", "ends"]

TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        ("unloaded", "want"): "loading",
        ("loading", "works"): "ready",
        ("loading", "fails"): "failed",
        ("loading", "drop"): "unloaded",
        ("ready", "starts"): "loading",  # its process was killed and is there again
        ("ready", "ends"): "loading",  # its process was killed; its supervisor starts another one
        ("ready", "fails"): "failed",
        ("ready", "drop"): "unloaded",
        ("failed", "starts"): "loading",  # its supervisor tries again by itself
        ("failed", "ends"): "loading",
        ("failed", "works"): "ready",
        ("failed", "drop"): "unloaded",
    }
)
"""What is not named changes nothing: an unloaded model's process may still be ending."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to see of a model's process. `reported` is what it said last, None for nothing."""

    reported: Literal["loading", "ready", "failed"] | None
    generation: int = 0
    alive: bool = False
    supervised: bool = False
    """Somebody starts it, and starts it again when it ends."""
    message: str | None = None


class Residency:
    """One model. `idle_s` are the seconds without a call after which it is dropped; None for never.

    `generation` is the one that should be in memory, None for none; `last` the highest there has been.
    """

    def __init__(self, *, generation: int | None, last: int, idle_s: float | None, now: float) -> None:
        self.generation = generation
        self.state: State = "unloaded" if generation is None else "loading"
        self.note: str | None = None
        self.since = now
        """When it came into its state."""
        self._last = last
        self._idle_s = idle_s
        self._used = now

    def want(self, now: float) -> bool:
        """A call needs it, or an operator wants it; whether that makes a new generation."""
        self._used = now
        if self.generation is not None:
            return False
        self._last += 1
        self.generation = self._last
        self._go("want", now, "it is being started")
        return True

    def drop(self, now: float) -> None:
        """It should leave memory."""
        self.generation = None
        self._go("drop", now, None)

    def see(self, seen: Seen, now: float) -> bool:
        """Take note of its process; whether its state changed."""
        if self.generation is None:
            return False
        event, note = self._meaning(seen)
        return self._go(event, now, note)

    def idle(self, busy: int, now: float) -> bool:
        """Whether it is to be dropped now: nobody called it for so long, and no call runs or waits (`busy`)."""
        if busy:
            self._used = now
        return self.idle_at is not None and now >= self.idle_at

    @property
    def idle_at(self) -> float | None:
        """When it is dropped if nobody calls; None when it stays, or is not there."""
        return None if self._idle_s is None or self.state in ("unloaded", "loading") else self._used + self._idle_s

    def _meaning(self, seen: Seen) -> tuple[Event, str | None]:
        if seen.reported is None or seen.generation != self.generation:
            return _unless_supervised(seen, "it is being started", "its process was not started")
        if seen.reported == "failed":
            return "fails", seen.message
        if not seen.alive:
            return _unless_supervised(seen, "its process ended and is started again", "its process ended")
        return ("works", None) if seen.reported == "ready" else ("starts", None)

    def _go(self, event: Event, now: float, note: str | None) -> bool:
        before = self.state
        self.state = TRANSITIONS.get((self.state, event), self.state)
        self.note = note
        if self.state == before:
            return False
        self.since = now
        return True


def _unless_supervised(seen: Seen, note: str, otherwise: str) -> tuple[Event, str]:
    return ("ends", note) if seen.supervised else ("fails", otherwise)

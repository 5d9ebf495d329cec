"""Looking for what another server on the same database did: this one's hub does not tell of it.

Whoever waits here for something to happen wakes at once when it happens here, and otherwise looks now and then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmagentos.core.events import Subscription

LOOK_S = 0.5
LOOKS_PER_S = 100
"""Of all who wait together; then each looks less often."""


class Looks:
    """How long those who wait leave between two looks; with one server on the database (not `several`) nobody looks."""

    def __init__(self, *, several: bool) -> None:
        self._several = several
        self._waiting = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While somebody waits."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def next(self, wakes: Subscription, left: float) -> Any:
        """What wakes who waits, or None when it is time to look.

        Raises `TimeoutError` after `left` seconds, `StopAsyncIteration` once `wakes` is closed.
        """
        look = self.within(left)
        try:
            return await wakes.next(look)
        except TimeoutError:
            if look == left:
                raise
            return None

    def within(self, left: float | None) -> float | None:
        """Seconds until the next look, at most `left`; None: whenever something happens here."""
        if not self._several:
            return left
        look = max(LOOK_S, self._waiting / LOOKS_PER_S)
        return look if left is None else min(left, look)

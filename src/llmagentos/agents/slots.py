"""Places of a host: so many runs at a time, not counting those that only wait for runs that need a place too.

Without that, as many runs as there are places, each waiting for a run of its own, would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Slots:
    """`most` places. Who comes back from waiting has a place at once: then there are too few for a while."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._changed = asyncio.Event()

    async def acquire(self) -> None:
        """Take a place, when there is one."""
        while self._free <= 0:
            self._changed.clear()
            await self._changed.wait()
        self._free -= 1

    def release(self) -> None:
        """Give a place back."""
        self._free += 1
        self._changed.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """A place that was taken is given back at the end; inside, `lent` lends it to others."""
        place = _Place(self)
        token = _PLACE.set(place)
        try:
            yield
        finally:
            _PLACE.reset(token)
            place.waiting = 0
            place.give_back()

    def take_again(self) -> None:
        """A place, whether there is one or not."""
        self._free -= 1


class _Place:
    """What one run holds; `waiting` of its calls only wait."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._has = True
        self.waiting = 0

    def give_back(self) -> None:
        if self._has:
            self._has = False
            self._slots.release()

    def take_again(self) -> None:
        if not self._has:
            self._has = True
            self._slots.take_again()


_PLACE: ContextVar[_Place | None] = ContextVar("place", default=None)


@contextmanager
def lent() -> Iterator[None]:
    """While the block waits for other runs, the place of the run that it belongs to is for others."""
    place = _PLACE.get()
    if place is None:
        yield
        return
    place.waiting += 1
    place.give_back()
    try:
        yield
    finally:
        place.waiting -= 1
        if place.waiting == 0:
            place.take_again()

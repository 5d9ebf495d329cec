"""A priority queue over keys whose ranks grow by themselves.

Counters that are charged while calls run would have to be moved in a heap at every token. Here a rank
is looked at only when its key comes to the top, and the key sinks to where it belongs by then. What
makes a rank fall has to be told (`fallen`). Every operation costs O(log n), amortised.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Generic, TypeVar

K = TypeVar("K")


class Ranking(Generic[K]):
    """Keys by `rank(key)`, the least first; a rank is any tuple that can be compared."""

    def __init__(self, rank: Callable[[K], tuple[Any, ...]]) -> None:
        self._rank = rank
        self._heap: list[tuple[tuple[Any, ...], int, K]] = []
        self._tickets: dict[K, int] = {}
        self._issued = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, key: K) -> bool:
        return key in self._tickets

    def __iter__(self) -> Any:
        return iter(self._tickets)

    def add(self, key: K) -> None:
        """Take a key in; one that is in already is ranked anew."""
        heappush(self._heap, (self._rank(key), self._ticket(key), key))
        if len(self._heap) > 2 * len(self._tickets) + 64:
            self._rebuild()

    def fallen(self, key: K) -> None:
        """The rank of `key` may be lower than it was."""
        if key in self._tickets:
            self.add(key)

    def discard(self, key: K) -> None:
        """Take a key out, if it is in."""
        self._tickets.pop(key, None)

    def first(self) -> K:
        """The key of the least rank; it stays in. Must not be empty."""
        while True:
            seen, ticket, key = self._heap[0]
            if self._tickets.get(key) != ticket:
                heappop(self._heap)
                continue
            rank = self._rank(key)
            if rank <= seen:
                return key
            heapreplace(self._heap, (rank, self._ticket(key), key))

    def _ticket(self, key: K) -> int:
        self._issued += 1
        self._tickets[key] = self._issued
        return self._issued

    def _rebuild(self) -> None:
        self._heap = [(self._rank(key), ticket, key) for key, ticket in self._tickets.items()]
        heapify(self._heap)

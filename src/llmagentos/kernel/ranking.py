"""A priority queue over keys whose ranks grow by themselves.

Counters that are charged while calls run would have to be moved in a heap at every token. Here a rank
is looked at only when its key comes to the top, and the key sinks to where it belongs by then. What
makes a rank fall has to be told (`fallen`). Every operation costs O(log n), amortised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Generic, TypeVar

K = TypeVar("K")


class Ranking(Generic[K]):
    """Keys by `rank(key)`, the least first; a rank is any tuple that can be compared."""

    def __init__(self, rank: Callable[[K], tuple[Any, ...]]) -> None:
        self._rank = rank
        self._heap: list[tuple[tuple[Any, ...], int, K]] = []
        self._current: dict[K, tuple[tuple[Any, ...], int, K]] = {}
        self._issued = 0

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, key: K) -> bool:
        return key in self._current

    def __iter__(self) -> Iterator[K]:
        return iter(self._current)

    def add(self, key: K) -> None:
        """Take a key in; one that is in already is ranked anew."""
        self._push(self._rank(key), key)

    def fallen(self, key: K) -> None:
        """The rank of `key` may be lower than it was."""
        current = self._current.get(key)
        if current is not None and (rank := self._rank(key)) < current[0]:
            self._push(rank, key)

    def discard(self, key: K) -> None:
        """Take a key out, if it is in."""
        self._current.pop(key, None)

    def first(self) -> K:
        """The key of the least rank; it stays in. Must not be empty."""
        while True:
            item = self._heap[0]
            key = item[2]
            if self._current.get(key) is not item:
                heappop(self._heap)
                continue
            rank = self._rank(key)
            if rank <= item[0]:
                return key
            self._issued += 1
            item = self._current[key] = (rank, self._issued, key)
            heapreplace(self._heap, item)

    def _push(self, rank: tuple[Any, ...], key: K) -> None:
        self._issued += 1
        item = self._current[key] = (rank, self._issued, key)
        heappush(self._heap, item)
        if len(self._heap) > 2 * len(self._current) + 64:
            self._heap = list(self._current.values())
            heapify(self._heap)

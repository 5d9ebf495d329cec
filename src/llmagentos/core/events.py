"""In-process publish and subscribe: who changed what, for streams and for those who wait.

A subscription never grows without bound: when its reader lags by more than `limit` items the
backlog is dropped and the reader gets one `LAGGED` marker, after which it must read the state anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final


class _Lagged:
    def __repr__(self) -> str:
        return "LAGGED"


LAGGED: Final = _Lagged()


class Subscription:
    """The reader's end. Iterate it, or `await next(timeout)`."""

    def __init__(self, limit: int) -> None:
        self._items: deque[Any] = deque()
        self._limit = limit
        self._ready = asyncio.Event()
        self._closed = False

    def _put(self, item: Any) -> None:
        if len(self._items) >= self._limit:
            self._items.clear()
            self._items.append(LAGGED)
        self._items.append(item)
        self._ready.set()

    def _close(self) -> None:
        self._closed = True
        self._ready.set()

    async def next(self, timeout: float | None = None) -> Any:
        """The next item. Raises `TimeoutError` after `timeout` seconds, `StopAsyncIteration` once closed."""
        async with asyncio.timeout(timeout):
            while not self._items:
                if self._closed:
                    raise StopAsyncIteration
                self._ready.clear()
                await self._ready.wait()
        return self._items.popleft()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            try:
                yield await self.next()
            except StopAsyncIteration:
                return


class Hub:
    """Topics and their subscribers, within one event loop."""

    def __init__(self, *, limit: int = 1000) -> None:
        self._limit = limit
        self._topics: dict[str, set[Subscription]] = {}

    def publish(self, topic: str, item: Any) -> None:
        """Hand `item` to everyone subscribed to `topic`; never blocks."""
        for subscription in self._topics.get(topic, ()):
            subscription._put(item)

    @contextmanager
    def subscribe(self, *topics: str) -> Iterator[Subscription]:
        """A subscription to all `topics`, ended on leaving the block."""
        subscription = Subscription(self._limit)
        for topic in topics:
            self._topics.setdefault(topic, set()).add(subscription)
        try:
            yield subscription
        finally:
            for topic in topics:
                self._topics[topic].discard(subscription)
                if not self._topics[topic]:
                    del self._topics[topic]

    def close(self) -> None:
        """End every subscription: streams finish so that the process can stop."""
        for subscribers in list(self._topics.values()):
            for subscription in list(subscribers):
                subscription._close()

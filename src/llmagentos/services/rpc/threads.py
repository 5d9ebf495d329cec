"""Plain methods run in threads: a bounded number, with a bounded number waiting."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any


class NoThread(Exception):
    """All threads are busy and enough calls wait: this one was not begun."""


class Threads:
    """Runs blocking functions. A call that was given up keeps its thread until it returns."""

    def __init__(self, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="service")
        self._room = threading.BoundedSemaphore(threads + waiting)

    async def run(self, function: Callable[[], Any]) -> Any:
        """The function's result, called with this task's context. Raises `NoThread` when too many wait."""
        if not self._room.acquire(blocking=False):
            raise NoThread
        future: Future[Any] = self._pool.submit(contextvars.copy_context().run, function)
        future.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(future)

    async def iterate(self, items: Iterator[Any]) -> AsyncGenerator[Any, None]:
        """Async generator over `items`, each taken in a thread."""
        try:
            while (item := await self.run(lambda: next(items, _END))) is not _END:
                yield item
        finally:
            if hasattr(items, "close"):
                with suppress(ValueError):  # a thread that was given up still runs the generator
                    await self.run(items.close)

    def close(self) -> None:
        """Take no more; threads end with what they run."""
        self._pool.shutdown(wait=False, cancel_futures=True)


_END = object()

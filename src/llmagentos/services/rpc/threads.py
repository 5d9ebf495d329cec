"""Plain methods run in threads: a bounded number, with a bounded number waiting."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any


class NoThread(Exception):
    """All threads are busy and enough calls wait: this one was not begun."""


class Escaped(Exception):
    """What a function raised that no future may carry (`StopIteration`) or that would end the event loop."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Threads:
    """Runs blocking functions. A call that was given up keeps its thread until it returns.

    The threads are daemons, which those of `concurrent.futures` are not: a method that never returns
    must not keep the process from ending.
    """

    def __init__(self, threads: int, waiting: int) -> None:
        self._most = threads
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._room = threading.BoundedSemaphore(threads + waiting)

    async def run(self, function: Callable[[], Any]) -> Any:
        """The function's result, called with this task's context. Raises what it raises, or `Escaped`.

        Raises `NoThread` when too many wait.
        """
        if not self._room.acquire(blocking=False):
            raise NoThread
        future: Future[Any] = Future()
        future.add_done_callback(lambda _: self._room.release())
        self._work.put((future, contextvars.copy_context(), function))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
            thread = threading.Thread(target=self._serve, name=f"service-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return await asyncio.wrap_future(future)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            future, context, function = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(context.run(function))
                except BaseException as error:  # whatever a method raises belongs to its caller
                    ordinary = isinstance(error, Exception) and not isinstance(error, StopIteration)
                    future.set_exception(error if ordinary else Escaped(error))
            del work, future, context, function  # nothing of the last call is kept while waiting
            self._idle.release()

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
        """Take no more; idle threads end, busy ones with what they run or with the process."""
        for _ in self._threads:
            self._work.put(None)


_Work = tuple[Future[Any], contextvars.Context, Callable[[], Any]]
_END = object()

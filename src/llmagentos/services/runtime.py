"""What all clients of one event loop share: the line to the server, the known instances, tokens, connections.

Programs without a loop of their own use one that runs in a background thread.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from llmagentos.api.http import HttpClient
from llmagentos.core.clock import SystemClock
from llmagentos.services.caller import ServiceCaller
from llmagentos.services.directory import Directory
from llmagentos.services.link import Follower, ServerLink
from llmagentos.services.tokens import ServiceTokens

T = TypeVar("T")


class Runtime:
    """The shared parts, on the running event loop. They end with the loop, or by `aclose`."""

    def __init__(self, link: ServerLink) -> None:
        clock = SystemClock()
        self.link = link
        directory = Directory()
        follower = Follower(link, directory)
        http = HttpClient(tls=link.credentials.tls())
        tokens = ServiceTokens(link.service_token, clock)
        self.caller = ServiceCaller(directory, tokens, http, clock, ready=follower.ready)
        self._task = asyncio.get_running_loop().create_task(self._live(follower))

    async def aclose(self) -> None:
        """Stop following and close the connections."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _live(self, follower: Follower) -> None:
        # One task for the life of the loop: `asyncio.run` cancels it at the end, and so everything is closed.
        try:
            await follower.follow()
        finally:
            _RUNTIMES.pop(asyncio.get_running_loop(), None)
            await self.caller.aclose()
            await self.link.aclose()


_RUNTIMES: dict[asyncio.AbstractEventLoop, Runtime] = {}
"""Each takes itself out when its loop ends."""


def here() -> Runtime:
    """The runtime of the running event loop, made on first use. Raises `NoServer` when no server is known."""
    loop = asyncio.get_running_loop()
    found = _RUNTIMES.get(loop)
    if found is None:
        for ended in [other for other in _RUNTIMES if other.is_closed()]:
            del _RUNTIMES[ended]
        found = _RUNTIMES[loop] = Runtime(ServerLink())
    return found


class _Background:
    """An event loop in a thread, for programs that have none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there, in the calling thread's context, and wait for it."""
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C here must end the call there
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None:
            return self._loop
        with self._lock:
            if self._loop is None:
                import uvloop

                loop = uvloop.new_event_loop()
                self._thread = threading.Thread(target=_turn, args=(loop,), name="llmagentos-calls", daemon=True)
                self._thread.start()
                self._loop = loop
                atexit.register(self._stop)
        return self._loop

    def _stop(self) -> None:
        loop, thread = self._loop, self._thread
        if loop is not None and thread is not None and thread.is_alive():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(2.0)

    def forget(self) -> None:
        """In a forked child: the thread is not there."""
        self.__init__()  # type: ignore[misc]


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


BACKGROUND = _Background()
os.register_at_fork(after_in_child=BACKGROUND.forget)

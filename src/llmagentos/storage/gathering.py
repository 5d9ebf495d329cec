"""Group commit: what comes while a transaction is under way is done in the next one, all of it together.

A thousand nodes that report at once cost a few transactions and syncs, not a thousand (DeWitt et al.,
"Implementation Techniques for Main Memory Database Systems", 1984).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from llmagentos.core.errors import TooManyRequests
from llmagentos.core.finishing import to_the_end

T = TypeVar("T")
R = TypeVar("R")

MOST = 200
MAX_WAITING = 20_000


class Gathered(Generic[T, R]):
    """Called with one item each, works on groups of at most `most` of them, in the order in which they came.

    `work` answers every item of a group with its result or its own error. What it raises is raised to all of the group.
    """

    def __init__(self, work: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]], *, most: int = MOST) -> None:
        self._work = work
        self._most = most
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._turn = asyncio.Lock()

    async def __call__(self, item: T) -> R:
        """The result of `item`. Raises its error, and `TooManyRequests`; one that is cancelled may yet be done."""
        if len(self._waiting) >= MAX_WAITING:
            raise TooManyRequests("too many requests wait for the database", retry_after=2)
        mine: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, mine))
        try:
            while not mine.done():
                async with self._turn:  # whoever comes first works for all who wait
                    if not mine.done():
                        await to_the_end(self._next())
        except asyncio.CancelledError:
            if not mine.cancel() and not mine.cancelled():
                mine.exception()  # nobody is left to be told
            raise
        return mine.result()

    async def _next(self) -> None:
        group: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(group) < self._most:
            entry = self._waiting.popleft()
            if not entry[1].done():
                group.append(entry)
        try:
            answers = await self._work([item for item, _ in group]) if group else []
        except Exception as error:  # told to those who wait
            answers = [error] * len(group)
        for (_, waiting), answer in zip(group, answers, strict=True):
            if waiting.done():
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)

"""One call under way: every wait for its engine is bounded, and can be ended from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import msgspec
from msgspec import UNSET

from llmagentos.api.llm import ChatChunk, ChunkChoice
from llmagentos.core.clock import Clock
from llmagentos.core.errors import DeadlineExceeded
from llmagentos.llm.engines.engine import EngineStalled
from llmagentos.llm.metering import CallCancelled, Measurement

T = TypeVar("T")


class Interrupted(Exception):
    """The run was paused while an engine worked on the call: the engine is to stop."""


class Call:
    """Waits of a call end at its `deadline` (monotonic seconds), after the engine's silence, or by `cancel`."""

    def __init__(self, measured: Measurement, clock: Clock, *, deadline: float, silence_s: float) -> None:
        self.measured = measured
        self._clock = clock
        self._deadline = deadline
        self._silence_s = silence_s
        self._created = int(clock.time())
        self._opened: set[int] = set()
        self._cancelled = False
        self._scope: asyncio.Timeout | None = None
        self._answering = False
        self._interrupted = False
        self.submitted = False
        """It waits for a slot or has one: before that it may still wait for its budget."""
        self.held = False
        """Its run is paused: no engine works on it."""
        self.asked = False
        """An engine was asked: it may have worked on it."""

    def cancel(self) -> None:
        """Have the wait under way, or else the next one, raise `CallCancelled`."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    def hold(self) -> None:
        """Its run is paused: a wait for the engine raises `Interrupted`, the one under way and all until `release`."""
        self.held = True
        if self._scope is not None and self._answering:
            self._interrupted = True
            self._scope.reschedule(asyncio.get_running_loop().time())

    def release(self) -> None:
        """Its run goes on."""
        self.held = False

    async def turn(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Wait for a slot."""
        return await self._bounded(wait, None)

    async def answer(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Wait for the engine. Raises `EngineStalled` when it is silent for too long, `Interrupted` by `hold`."""
        if self.held and not self._cancelled:
            raise Interrupted
        self.asked = self._answering = True
        try:
            return await self._bounded(wait, self._silence_s)
        finally:
            self._answering = self._interrupted = False

    async def each(self, chunks: AsyncIterator[ChatChunk]) -> AsyncIterator[ChatChunk]:
        """The engine's chunks, each awaited with `answer`."""
        while True:
            try:
                chunk = await self.answer(lambda: anext(chunks))
            except StopAsyncIteration:
                return
            yield chunk

    def ours(self, chunk: ChatChunk) -> ChatChunk:
        """The engine's chunk under our names: one id for the whole answer, the model as it is called here.

        The first piece of each choice says whose it is.
        """
        choices = chunk.choices
        for place, choice in enumerate(choices):
            if choice.index not in self._opened:
                self._opened.add(choice.index)
                delta = msgspec.structs.replace(choice.delta, role="assistant")
                choices = [*choices[:place], msgspec.structs.replace(choice, delta=delta), *choices[place + 1 :]]
        return self._chunk(choices)

    def usage(self) -> ChatChunk:
        """The last chunk: no text, but what the call took."""
        return msgspec.structs.replace(self._chunk([]), usage=self.measured.usage, waits=self.measured.waits)

    def _chunk(self, choices: list[ChunkChoice]) -> ChatChunk:
        return ChatChunk(f"chatcmpl-{self.measured.id}", self._created, self.measured.model, choices, UNSET)

    async def _bounded(self, wait: Callable[[], Awaitable[T]], silence: float | None) -> T:
        remaining = self._deadline - self._clock.monotonic()
        limit = remaining if silence is None else min(remaining, silence)
        if self._cancelled:
            raise self._cancellation()
        try:
            async with asyncio.timeout(limit) as self._scope:
                return await wait()
        except TimeoutError:
            if self._cancelled:
                raise self._cancellation() from None
            if self._interrupted:
                raise Interrupted from None
            if silence is not None and silence < remaining:
                raise EngineStalled(
                    f"the engine of {self.measured.model!r} sent nothing for {silence:g} s",
                    hint="`llmctl models` shows how busy it is",
                ) from None
            raise DeadlineExceeded(f"the call to {self.measured.model!r} did not end before its deadline") from None
        finally:
            self._scope = None

    def _cancellation(self) -> CallCancelled:
        return CallCancelled(f"the call to {self.measured.model!r} was cancelled with its run")

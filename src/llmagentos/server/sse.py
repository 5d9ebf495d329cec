"""Server-sent events out of an async iterator, with keep-alives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.responses import StreamingResponse

KEEP_ALIVE_S = 10.0


class Event(msgspec.Struct, frozen=True):
    """One event to send: its type (None: no line for it), a JSON-encodable value and an id to resume from."""

    event: str | None
    data: Any
    id: str | None = None

    def encode(self) -> bytes:
        """The event as on the wire."""
        head = f"id: {self.id}\n" if self.id is not None else ""
        kind = f"event: {self.event}\n" if self.event is not None else ""
        return f"{head}{kind}data: ".encode() + msgspec.json.encode(self.data) + b"\n\n"


def stream(events: AsyncIterator[Event]) -> StreamingResponse:
    """The response that sends `events`, and a comment every 10 s so that both ends notice a dead peer."""
    return StreamingResponse(
        _frames(events),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _frames(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    yield b": hello\n\n"
    iterator = aiter(events)
    pending: asyncio.Task[Event] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(iterator))
            done, _ = await asyncio.wait({pending}, timeout=KEEP_ALIVE_S)
            if not done:
                yield b": keep-alive\n\n"
                continue
            finished, pending = pending, None
            try:
                yield finished.result().encode()
            except StopAsyncIteration:
                return
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)

"""What our own engine processes need to answer HTTP on a Unix socket: bodies, hang-ups, errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
import uvicorn

from llmagentos.core.errors import InvalidInput, LLMAgentOSError

MAX_BODY = 16 * 1024 * 1024

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class HungUp(Exception):
    """The caller is gone."""


async def content(receive: Receive) -> bytes:
    """The body of a request. Raises `HungUp`, or `InvalidInput` for one of over 16 MiB."""
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HungUp
        parts += message.get("body", b"")
        if len(parts) > MAX_BODY:
            raise InvalidInput(f"the request is over {MAX_BODY} bytes")
        if not message.get("more_body"):
            return bytes(parts)


@asynccontextmanager
async def watched(receive: Receive) -> AsyncIterator[asyncio.Event]:
    """An event that is set when the caller hangs up."""
    gone = asyncio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        gone.set()

    watcher = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        watcher.cancel()


async def answer(send: Send, status: int, body: bytes, kind: str = "application/json") -> None:
    """A whole response."""
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def shape(error: LLMAgentOSError) -> bytes:
    """An error as OpenAI's clients expect it, with its details."""
    told = {"message": error.message, "type": "invalid_request_error" if error.status < 500 else "server_error"}
    return msgspec.json.encode({"error": told | error.details})


def serve(app: App, path: str, ready: Callable[[], None]) -> None:
    """Serve `app` on the Unix socket `path` until the process is killed."""
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        asyncio.run(_Server(config, ready).serve(sockets=[listener]))


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals alone: SIGTERM ends the process at once."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._ready()

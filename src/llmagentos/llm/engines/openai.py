"""The driver of everything that speaks OpenAI's API: URLs of others, and our own engine processes.

Chat is always asked for as a stream: llama.cpp generates to the end for a caller that hung up when it
answers in one piece, but stops within a token when a stream's connection closes. A stream also gives
the time to the first token.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from time import time
from typing import Any
from urllib.parse import urlsplit

import msgspec

from llmagentos.api.completions import CompletionRequest
from llmagentos.api.http import ConnectFailed, ConnectionLost, HttpClient, StreamResponse
from llmagentos.api.llm import ChatChunk, ChatRequest, Embedding, EmbeddingRequest, Embeddings, StreamOptions, Usage
from llmagentos.core import tracing
from llmagentos.core.errors import InvalidInput, LLMAgentOSError
from llmagentos.llm.engines import lines, ratelimits
from llmagentos.llm.engines.engine import (
    LOADING_RETRY_S,
    ContextOverflow,
    EngineBusy,
    EngineFailed,
    EngineLost,
    EngineStatus,
    ModelLoading,
    NoCompletions,
    QuotaExhausted,
)
from llmagentos.llm.engines.signs import Signs

_MAX_LINE = 4 * 1024 * 1024
_PROBE_S = 2.0
_OVERFLOW = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_RETRY_AFTER_S = 5.0
_QUOTA_RETRY_S = 60.0
_OVERLOADED = (503, 529)
_NO_ROUTE = (404, 405, 501)


class _Vector(msgspec.Struct, frozen=True):
    embedding: list[float]
    index: int = 0


class _Vectors(msgspec.Struct, frozen=True):
    data: list[_Vector]
    usage: Usage = msgspec.field(default_factory=Usage)


_VECTORS = msgspec.json.Decoder(_Vectors)


class OpenAIEngine:
    """The model that `base` (e.g. `https://host/v1`, or `unix:/path.sock`) calls `upstream`; here it is `model`.

    `away` makes the error for when nothing answers; also, for an engine of `ours`, when it ended before it
    said anything. `probe` tells the state, `signs` what the server says of itself. To the engines of others
    connections are kept, and a call whose connection ended before any answer is made once more: servers
    close idle connections, llama.cpp even those that it said it would keep, just when the next call goes out.
    """

    def __init__(
        self,
        model: str,
        *,
        base: str,
        upstream: str,
        http: HttpClient,
        api_key: Callable[[], str] | None,
        away: Callable[[str], Awaitable[LLMAgentOSError]],
        probe: Callable[[], Awaitable[EngineStatus]],
        signs: Callable[[], Awaitable[Signs]],
        ours: bool,
        pass_priority: bool = False,
    ) -> None:
        self._model = model
        self._origin, self._prefix = split_base(base)
        self._upstream = upstream
        self._http = http
        self._api_key = api_key
        self._away = away
        self._probe = probe
        self._signs = signs
        self._ours = ours
        self._pass_priority = pass_priority
        self._left: dict[str, float] = {}

    @property
    def left(self) -> Mapping[str, float]:
        """See `Engine.left`."""
        return self._left

    def chat(self, request: ChatRequest, *, priority: int = 0) -> AsyncGenerator[ChatChunk, None]:
        """See `Engine.chat`. Raises `ContextOverflow`, `InvalidInput`, `ModelLoading` or a `ModelError`."""
        return self._stream("/chat/completions", request, priority, lines.of_chat)

    def write(self, request: CompletionRequest, *, priority: int = 0) -> AsyncGenerator[ChatChunk, None]:
        """See `Engine.write`. Raises what `chat` does."""
        return self._stream("/completions", request, priority, lines.of_text)

    async def _stream(
        self, route: str, request: ChatRequest | CompletionRequest, priority: int, decode: Callable[[bytes], lines.Line]
    ) -> AsyncGenerator[ChatChunk, None]:
        asked = msgspec.structs.replace(
            request, model=self._upstream, stream=True, stream_options=StreamOptions(include_usage=True)
        )
        begun = False
        try:
            async with self._answering(route, self._with(asked, priority)) as response:
                if isinstance(request, CompletionRequest) and response.status in _NO_ROUTE:
                    raise NoCompletions(
                        f"the engine of {self._model!r} takes no completions: it answered HTTP {response.status}",
                        hint="POST /v1/chat/completions",
                    )
                await self._accepted(response)
                ended = False
                async for line in _lines(response.iter_bytes()):
                    if (chunk := self._chunk(line, decode)) is not None:
                        begun = True
                        ended = ended or any(choice.finish_reason for choice in chunk.choices)
                        yield chunk
                    else:
                        ended = ended or line.rstrip().endswith(b"[DONE]")
                # Where the connection ends with the body, a server that died looks like one that is done.
                if not ended:
                    raise self._lost()
        except ConnectionLost as error:
            if self._ours and not begun:
                raise await self._away(error.message) from None
            raise self._lost() from None

    def _lost(self) -> EngineLost:
        return EngineLost(
            f"the engine of {self._model!r} ended while it was generating",
            hint="try again; an engine of this system is started again by itself (`llmctl models`)",
        )

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """See `Engine.embed`. Raises what `chat` does."""
        asked = msgspec.structs.replace(request, model=self._upstream, encoding_format="float")
        try:
            async with self._answering("/embeddings", asked) as response:
                status, headers, body = response.status, response.headers, await response.read()
        except ConnectionLost as error:
            if self._ours:
                raise await self._away(error.message) from None
            raise EngineLost(f"the engine of {self._model!r} ended before it answered", hint="try again") from None
        if status != 200:
            raise self._refusal(status, headers, body)
        try:
            found = _VECTORS.decode(body)
        except msgspec.DecodeError as error:
            raise EngineFailed(f"the engine of {self._model!r} answered no embeddings: {error}") from None
        if len(found.data) != len(request.texts):
            raise EngineFailed(
                f"the engine of {self._model!r} answered {len(found.data)} vectors for {len(request.texts)} texts"
            )
        vectors = sorted(found.data, key=lambda vector: vector.index)
        return Embeddings([Embedding(i, v.embedding) for i, v in enumerate(vectors)], self._model, found.usage)

    async def status(self) -> EngineStatus:
        """See `Engine.status`."""
        return await self._probe()

    async def signs(self) -> Signs:
        """See `Engine.signs`."""
        return await self._signs()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _with(
        self, request: ChatRequest | CompletionRequest, priority: int
    ) -> ChatRequest | CompletionRequest | dict[str, Any]:
        """The request with the field by which vLLM orders calls, where the configuration says that it is known."""
        return msgspec.to_builtins(request) | {"priority": priority} if self._pass_priority else request

    @asynccontextmanager
    async def _answering(
        self, route: str, request: ChatRequest | CompletionRequest | EmbeddingRequest | dict[str, Any]
    ) -> AsyncIterator[StreamResponse]:
        """The response to a request. Raises the error of `away`, and `ConnectionLost`."""
        body = msgspec.json.encode(request)
        attempts = 1 if self._ours else 2  # only those of others have connections that were used before
        async with AsyncExitStack() as stack:
            for attempt in range(1, attempts + 1):
                call = self._http.stream(
                    "POST", self._origin, f"{self._prefix}{route}", headers=self._headers(), body=body, timeout=None
                )
                try:
                    response = await stack.enter_async_context(call)
                    break
                except ConnectFailed as error:
                    raise await self._away(error.message) from None
                except ConnectionLost:
                    if attempt == attempts:
                        raise
            self._left = ratelimits.left(response.headers)
            yield response

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key()}"
        tracing.inject(headers)
        return headers

    async def _accepted(self, response: StreamResponse) -> None:
        if response.status != 200:
            raise self._refusal(response.status, response.headers, await response.read())
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise EngineFailed(f"the engine of {self._model!r} answered {kind or 'nothing'} instead of an event stream")

    def _chunk(self, line: bytes, decode: Callable[[bytes], lines.Line]) -> ChatChunk | None:
        if not line.startswith(b"data:"):
            return None  # comments (keep-alives), event names, the empty line after each event
        data = line[5:].strip()
        if data in (b"[DONE]", b"null"):  # llama.cpp opens completions with a null
            return None
        try:
            chunk = decode(data)
        except msgspec.DecodeError as error:
            raise EngineFailed(f"the engine of {self._model!r} sent what is no chunk of an answer: {error}") from None
        if chunk.error is not None:
            raise EngineFailed(f"the engine of {self._model!r} failed: {_message(chunk.error)}")
        return chunk

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> LLMAgentOSError:
        error = _error_of(body)
        message = _message(error) or f"HTTP {status}"
        kinds = {error.get("type"), error.get("code")} if isinstance(error, dict) else set()
        if kinds & _OVERFLOW:
            return _overflow(self._model, error, message)
        if status == 503 and "oading" in message:
            return loading(self._model)
        wait = ratelimits.retry_after(headers, time())
        if ratelimits.nothing_left(status, error):
            return QuotaExhausted(
                f"the quota of the model {self._model!r} is used up: {message}",
                retry_after=_QUOTA_RETRY_S if wait is None else wait,
                hint="look at the account's limits and balance at whoever serves it",
            )
        if status == 429 or status in _OVERLOADED:
            text = f"the engine of {self._model!r} takes no more calls: {message}"
            down = status in _OVERLOADED
            return EngineBusy(text, retry_after=_RETRY_AFTER_S if wait is None else wait, down=down)
        if status in (400, 413, 422):
            return InvalidInput(f"the engine of {self._model!r} refuses the request: {message}")
        hint = {
            401: f"is models.{self._model}.api_key right?",
            403: f"is models.{self._model}.api_key right?",
            404: f"are models.{self._model}.url and .model right?",
        }.get(status)
        return EngineFailed(f"the engine of {self._model!r} answered HTTP {status}: {message}", hint=hint)


def split_base(base: str) -> tuple[str, str]:
    """A base URL's origin and the path before every route. Over a Unix socket that is `/v1`."""
    if base.startswith("unix:"):
        return base, "/v1"
    parts = urlsplit(base)
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")


def loading(model: str) -> ModelLoading:
    """The error for a model that will be ready soon."""
    return ModelLoading(
        f"the model {model!r} is loading", hint="try again in a moment; `llmctl models`", retry_after=LOADING_RETRY_S
    )


async def remote_status(http: HttpClient, base: str, api_key: Callable[[], str] | None) -> EngineStatus:
    """The state of a URL by its list of models."""
    origin, prefix = split_base(base)
    try:
        headers = {"Authorization": f"Bearer {api_key()}"} if api_key is not None else {}
        response = await http.request("GET", origin, f"{prefix}/models", headers=headers, timeout=_PROBE_S)
    except LLMAgentOSError as error:
        return EngineStatus("unreachable", error.message)
    if response.status in (401, 403):
        return EngineStatus("unreachable", f"{base} refuses the key (HTTP {response.status})")
    if response.status >= 500:
        return EngineStatus("unreachable", f"{base} answers HTTP {response.status}")
    return EngineStatus("ready")


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines without their ends; a line has a limit, which `StreamResponse.iter_lines` does not set."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_LINE:
            raise EngineFailed(f"the engine sent a line of over {_MAX_LINE} bytes")
        for line in lines:
            yield line
    if rest:
        yield rest


def _error_of(body: bytes) -> Any:
    """The `error` member of an answer in OpenAI's shape; the text itself for any other."""
    try:
        content = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body[:300].decode("utf-8", "replace").strip()
    return content.get("error", content) if isinstance(content, dict) else content


def _message(error: Any) -> str:
    if isinstance(error, dict):
        return str(error.get("message") or error.get("detail") or error)[:500]
    return str(error)[:500]


def _overflow(model: str, error: Any, message: str) -> ContextOverflow:
    size, context = error.get("n_prompt_tokens"), error.get("n_ctx")
    if not (isinstance(size, int) and isinstance(context, int)):
        return ContextOverflow(message, param="messages")
    return ContextOverflow(
        f"the request has {size} tokens, more than the {context} of the context of {model!r}",
        hint=f"shorten the messages, or raise models.{model}.context",
        param="messages",
    )

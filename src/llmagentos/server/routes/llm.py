"""OpenAI's API in front of every model, and what models there are."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple, TypeVar, cast

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from llmagentos.api.llm import (
    PRIORITY_HEADER,
    PURPOSE_HEADER,
    RUN_HEADER,
    TIMEOUT_HEADER,
    CallInfo,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    EmbeddingRequest,
    Embeddings,
    ModelCard,
    ModelInfo,
    ModelList,
    ModelQueue,
    Purpose,
)
from llmagentos.core.errors import Forbidden, InvalidInput, LLMAgentOSError
from llmagentos.kernel.calls import priority_of
from llmagentos.llm.gateway import TIMEOUT_S, Gateway
from llmagentos.security.identity import Identity, Kind, Permission
from llmagentos.server.connected import while_connected
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.respond import openai_shape

T = TypeVar("T")

ActsFor = Callable[[Identity, str], Awaitable[None]]
"""Raises `Forbidden`, `NotFound` or `Conflict` when an identity may not call models for a run."""

_MAX_RUN_ID = 64
_MAX_CALLS = 1000
_DONE = b"data: [DONE]\n\n"


def endpoints(
    gateway: Gateway,
    calls: Callable[[int, str | None], Awaitable[list[CallInfo]]],
    acts_for: ActsFor,
    *,
    started: float,
) -> list[Endpoint]:
    """`calls(limit, run)` gives the newest metered calls; `started` is the age of models in OpenAI's list."""
    return [*_calling(gateway, acts_for), *_reading(gateway, calls, started)]


def _calling(gateway: Gateway, acts_for: ActsFor) -> list[Endpoint]:
    async def context(call: Call) -> _Headers:
        headers = _headers(call)
        if headers.run_id is not None:
            await acts_for(call.identity, headers.run_id)
        return headers

    async def chat(call: Call) -> ChatCompletion | EventStream:
        request: ChatRequest = call.body
        given = (await context(call))._asdict()
        if not request.stream:
            return await while_connected(call.request, gateway.complete(request, call.identity, **given))
        usage = request.stream_options is not None and request.stream_options.include_usage
        chunks = gateway.chat(request, call.identity, **given)
        # The first chunk decides on the status: every refusal comes before it.
        first = await while_connected(call.request, _first(chunks))
        return EventStream(_frames(first, chunks, usage=usage))

    async def embeddings(call: Call) -> Embeddings:
        request: EmbeddingRequest = call.body
        given = await context(call)
        work = gateway.embed(
            request, call.identity, run_id=given.run_id, timeout=given.timeout, priority=given.priority
        )
        found = await while_connected(call.request, work)
        return _packed(found) if request.encoding_format == "base64" else found

    use = Permission.MODELS_CALL
    return [
        Endpoint(
            "POST",
            "/v1/chat/completions",
            use,
            chat,
            body=ChatRequest,
            returns=ChatCompletion,
            summary="Chat with a model (OpenAI's API), in one piece or as a stream",
        ),
        Endpoint(
            "POST",
            "/v1/embeddings",
            use,
            embeddings,
            body=EmbeddingRequest,
            returns=Embeddings,
            summary="Vectors of texts (OpenAI's API)",
        ),
    ]


def _reading(
    gateway: Gateway, calls: Callable[[int, str | None], Awaitable[list[CallInfo]]], started: float
) -> list[Endpoint]:
    async def models(_: Call) -> ModelList:
        return ModelList([ModelCard(m.name, int(started), m.engine) for m in await gateway.models()])

    async def listing(_: Call) -> list[ModelInfo]:
        return await gateway.models()

    async def metered(call: Call) -> list[CallInfo]:
        limit = int(call.number("limit", 100, most=_MAX_CALLS))
        return await calls(limit, call.query.get("run"))

    async def queues(call: Call) -> list[ModelQueue]:
        return gateway.queues(most=int(call.number("limit", 100, most=_MAX_CALLS)))

    read = Permission.MODELS_READ
    return [
        Endpoint(
            "GET",
            "/v1/models",
            Permission.MODELS_LIST,
            models,
            returns=ModelList,
            summary="List models (OpenAI's API)",
        ),
        Endpoint(
            "GET", "/api/v1/models", read, listing, returns=list[ModelInfo], summary="List models and how busy they are"
        ),
        Endpoint(
            "GET",
            "/api/v1/models/queue",
            read,
            queues,
            returns=list[ModelQueue],
            summary="Who uses each model and who waits for it, and why (`limit` of each)",
        ),
        Endpoint(
            "GET",
            "/api/v1/models/calls",
            read,
            metered,
            returns=list[CallInfo],
            summary="The newest calls to models (`limit`, `run`)",
        ),
    ]


class EventStream(StreamingResponse):
    """Server-sent events whose source is closed as soon as they end or the client hangs up."""

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(frames, media_type="text/event-stream", headers=headers)
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._frames):
            try:
                await while_connected(Request(scope, receive), self.stream_response(send))
            except ClientDisconnect:
                return


async def _frames(
    first: ChatChunk, chunks: AsyncGenerator[ChatChunk, None], *, usage: bool
) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        yield _frame(first)
        try:
            async for chunk in chunks:
                if chunk.choices or usage:
                    yield _frame(chunk)
        except LLMAgentOSError as error:  # too late for a status
            yield b"data: " + openai_shape(error) + b"\n\n"
            return
        yield _DONE


def _frame(chunk: ChatChunk) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


async def _first(chunks: AsyncGenerator[ChatChunk, None]) -> ChatChunk:
    try:
        return await anext(chunks)
    except BaseException:
        await chunks.aclose()
        raise


class _Headers(NamedTuple):
    """What the headers say of a call; `timeout` in seconds."""

    run_id: str | None
    purpose: Purpose | None
    timeout: float
    priority: int | None


def _headers(call: Call) -> _Headers:
    """Raises `InvalidInput` or `Forbidden`."""
    headers = call.request.headers
    run_id, purpose = headers.get(RUN_HEADER), headers.get(PURPOSE_HEADER)
    if call.identity.kind is Kind.RUN:  # a program is its run, and no other one
        if run_id not in (None, call.identity.subject):
            raise Forbidden(f"{call.identity} may not call models for the run {run_id[:_MAX_RUN_ID]!r}")
        run_id = call.identity.subject
    elif run_id is not None and not call.identity.may(Permission.RUNS_EXECUTE):
        raise Forbidden(f"{call.identity} may not call models for a run: it needs {Permission.RUNS_EXECUTE.value}")
    if run_id is not None and not 0 < len(run_id) <= _MAX_RUN_ID:
        raise InvalidInput(f"{RUN_HEADER} must be a run's id, not {run_id[:_MAX_RUN_ID]!r}")
    if purpose not in (None, "answer", "tool"):
        raise InvalidInput(f"{PURPOSE_HEADER} must be answer or tool, not {purpose!r}")
    timeout, priority = _seconds_left(headers.get(TIMEOUT_HEADER)), _priority(call, headers.get(PRIORITY_HEADER))
    return _Headers(run_id, cast("Purpose | None", purpose), timeout, priority)


def _priority(call: Call, text: str | None) -> int | None:
    """As with nice(2), everybody may be nicer than usual, but only who steers runs may go before others."""
    if text is None:
        return None
    priority = priority_of(text)
    if priority < 0 and not call.identity.may(Permission.RUNS_WRITE):
        raise Forbidden(
            f"{call.identity} may not call models with priority {text}, which goes before others",
            hint=f"leave {PRIORITY_HEADER} out, or have an operator `llmctl nice` the run",
        )
    return priority


def _seconds_left(text: str | None) -> float:
    if text is None:
        return TIMEOUT_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidInput(f"{TIMEOUT_HEADER} must be seconds, not {text!r}")
    return min(seconds, TIMEOUT_S)


def _packed(found: Embeddings) -> Embeddings:
    """Vectors as base64 of little-endian float32, as OpenAI's clients ask for them."""
    data = []
    for vector in found.data:
        numbers = cast("list[float]", vector.embedding)
        packed = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
        data.append(msgspec.structs.replace(vector, embedding=packed))
    return msgspec.structs.replace(found, data=data)

"""OpenAI's API in front of every model, and what models there are."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

import msgspec

from llmagentos.api.llm import (
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
)
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.llm.gateway import Gateway
from llmagentos.llm.redacted import RedactedCalls
from llmagentos.security.identity import Permission
from llmagentos.server.connected import while_connected
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.model_calls import DONE, ActsFor, EventStream, first_of, given
from llmagentos.server.respond import openai_shape

_MAX_CALLS = 1000


def endpoints(
    gateway: Gateway,
    redacted: RedactedCalls,
    calls: Callable[[int, str | None], Awaitable[list[CallInfo]]],
    acts_for: ActsFor,
    *,
    started: float,
) -> list[Endpoint]:
    """`calls(limit, run)` gives the newest metered calls; `started` is the age of models in OpenAI's list."""
    return [*_calling(redacted, acts_for), *_reading(gateway, calls, started)]


def _calling(gateway: RedactedCalls, acts_for: ActsFor) -> list[Endpoint]:
    async def chat(call: Call) -> ChatCompletion | EventStream:
        request: ChatRequest = call.body
        headers = (await given(call, acts_for))._asdict()
        if not request.stream:
            return await while_connected(call.request, gateway.complete(request, call.identity, **headers))
        usage = request.stream_options is not None and request.stream_options.include_usage
        chunks = gateway.chat(request, call.identity, **headers)
        first = await while_connected(call.request, first_of(chunks))
        return EventStream(_frames(first, chunks, usage=usage))

    async def embeddings(call: Call) -> Embeddings:
        request: EmbeddingRequest = call.body
        asked = await given(call, acts_for)
        work = gateway.embed(
            request, call.identity, run_id=asked.run_id, timeout=asked.timeout, priority=asked.priority
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

    async def model(call: Call) -> ModelCard:
        found = gateway.model(call.path["name"])
        return ModelCard(found.name, int(started), found.kind)

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
            "GET",
            "/v1/models/{name:path}",  # names may hold slashes: org/model
            Permission.MODELS_LIST,
            model,
            returns=ModelCard,
            summary="One model (OpenAI's API), by name or alias",
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
        yield DONE


def _frame(chunk: ChatChunk) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _packed(found: Embeddings) -> Embeddings:
    """Vectors as base64 of little-endian float32, as OpenAI's clients ask for them."""
    data = []
    for vector in found.data:
        numbers = cast("list[float]", vector.embedding)
        packed = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
        data.append(msgspec.structs.replace(vector, embedding=packed))
    return msgspec.structs.replace(found, data=data)

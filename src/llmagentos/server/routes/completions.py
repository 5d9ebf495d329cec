"""OpenAI's older text completions in front of every model whose engine has them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from llmagentos.api.completions import Completion, CompletionRequest
from llmagentos.api.llm import ChatChunk
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.llm.completions import pieces, whole
from llmagentos.llm.redacted import RedactedCalls
from llmagentos.security.identity import Permission
from llmagentos.server.connected import while_connected
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.model_calls import DONE, ActsFor, EventStream, first_of, given
from llmagentos.server.respond import openai_shape


def endpoints(gateway: RedactedCalls, acts_for: ActsFor) -> list[Endpoint]:
    """Go on with texts."""

    async def create(call: Call) -> Completion | EventStream:
        request: CompletionRequest = call.body
        headers = (await given(call, acts_for))._asdict()

        def write(part: CompletionRequest) -> AsyncGenerator[ChatChunk, None]:
            return gateway.write(part, call.identity, **headers)

        if not request.stream:
            return await while_connected(call.request, whole(request, write))
        usage = request.stream_options is not None and request.stream_options.include_usage
        found = pieces(request, write)
        first = await while_connected(call.request, first_of(found))
        return EventStream(_frames(first, found, usage=usage))

    return [
        Endpoint(
            "POST",
            "/v1/completions",
            Permission.MODELS_CALL,
            create,
            body=CompletionRequest,
            returns=Completion,
            summary="Go on with a text (OpenAI's older API), in one piece or as a stream",
        )
    ]


async def _frames(
    first: Completion, found: AsyncGenerator[Completion, None], *, usage: bool
) -> AsyncGenerator[bytes, None]:
    async with aclosing(found):
        yield _frame(first)
        try:
            async for piece in found:
                if piece.choices or usage:
                    yield _frame(piece)
        except LLMAgentOSError as error:  # too late for a status
            yield b"data: " + openai_shape(error) + b"\n\n"
            return
        yield DONE


def _frame(piece: Completion) -> bytes:
    return b"data: " + msgspec.json.encode(piece) + b"\n\n"

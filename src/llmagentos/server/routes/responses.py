"""OpenAI's Responses API in front of every model that chats."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from llmagentos.api.responses import DeletedResponse, Event, InputItems, ModelResponse, ResponsesRequest
from llmagentos.core.errors import InvalidInput
from llmagentos.llm.responses.service import Responses
from llmagentos.security.identity import Permission
from llmagentos.server.connected import while_connected
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.model_calls import DONE, ActsFor, EventStream, first_of, given


def endpoints(responses: Responses, acts_for: ActsFor) -> list[Endpoint]:
    """Make, read and delete responses."""

    async def create(call: Call) -> ModelResponse | EventStream:
        request: ResponsesRequest = call.body
        headers = (await given(call, acts_for))._asdict()
        if not request.stream:
            return await while_connected(call.request, responses.whole(request, call.identity, **headers))
        events = responses.stream(request, call.identity, **headers)
        first = await while_connected(call.request, first_of(events))
        return EventStream(_frames(first, events))

    async def show(call: Call) -> ModelResponse:
        if call.flag("stream"):
            raise InvalidInput("a response that was made cannot be streamed again", param="stream")
        return (await responses.get(call.path["id"], call.identity)).response

    async def items(call: Call) -> InputItems:
        found = (await responses.get(call.path["id"], call.identity)).input
        return InputItems(found if call.query.get("order") == "asc" else found[::-1])

    async def delete(call: Call) -> DeletedResponse:
        await responses.delete(call.path["id"], call.identity)
        return DeletedResponse(call.path["id"])

    use, path = Permission.MODELS_CALL, "/v1/responses/{id}"
    return [
        Endpoint(
            "POST",
            "/v1/responses",
            use,
            create,
            body=ResponsesRequest,
            returns=ModelResponse,
            summary="Have a model respond (OpenAI's Responses API), in one piece or as a stream of events",
        ),
        Endpoint("GET", path, use, show, returns=ModelResponse, summary="A response that was kept, to who asked"),
        Endpoint(
            "GET", f"{path}/input_items", use, items, returns=InputItems, summary="What a kept response was asked"
        ),
        Endpoint("DELETE", path, use, delete, returns=DeletedResponse, summary="Forget a response"),
    ]


async def _frames(first: Event, events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        yield _frame(first)
        async for event in events:
            yield _frame(event)
    yield DONE


def _frame(event: Event) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), msgspec.json.encode(event))

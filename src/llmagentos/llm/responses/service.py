"""Responses: made by a chat call through the gate, and kept for who asked until they are forgotten."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from llmagentos.api.llm import ChatChunk, ChatRequest
from llmagentos.api.responses import Event, Item, ModelResponse, ResponsesRequest
from llmagentos.core.clock import Clock
from llmagentos.core.errors import LLMAgentOSError, NotFound
from llmagentos.llm.responses.asking import chat_request, items_of
from llmagentos.llm.responses.writing import Writer
from llmagentos.security.identity import Identity
from llmagentos.storage.responses import StoredResponse

Chat = Callable[..., AsyncGenerator[ChatChunk, None]]
"""`Gateway.chat`."""


class ResponseNotFound(NotFound):
    """No such response, or not the caller's."""

    code = "response_not_found"


class Records(Protocol):
    """Where responses are kept, each for its owner."""

    async def add(self, owner: str, stored: StoredResponse) -> None: ...
    async def get(self, owner: str, response_id: str) -> StoredResponse | None: ...
    async def chain(self, owner: str, response_id: str) -> list[StoredResponse]: ...
    async def remove(self, owner: str, response_id: str) -> bool: ...


class Responses:
    """Makes, keeps and finds responses."""

    def __init__(self, chat: Chat, records: Records, clock: Clock) -> None:
        self._chat = chat
        self._records = records
        self._clock = clock

    async def stream(self, request: ResponsesRequest, caller: Identity, **given: Any) -> AsyncGenerator[Event, None]:
        """The events of a response; `given` are the keywords of `Gateway.chat`, which raises before the first event.

        Later errors are the event `response.failed`. A response that is to be kept is, before its last event.
        """
        chat = await self._asked(request, caller)
        async with aclosing(self._chat(chat, caller, **given)) as chunks:
            first = await anext(chunks)
            writer = Writer(request, first)
            for event in [*writer.begin(), *writer.add(first)]:
                yield event
            try:
                async for chunk in chunks:
                    for event in writer.add(chunk):
                        yield event
                last = writer.end(int(self._clock.time()))
                await self._keep(request, caller, writer.response)
            except LLMAgentOSError as error:
                last = writer.fail(error)
        for event in last:
            yield event

    async def whole(self, request: ResponsesRequest, caller: Identity, **given: Any) -> ModelResponse:
        """The response in one piece; raises what `Gateway.chat` does."""
        chat = await self._asked(request, caller)
        async with aclosing(self._chat(chat, caller, **given)) as chunks:
            first = await anext(chunks)
            writer = Writer(request, first)
            writer.add(first)
            async for chunk in chunks:
                writer.add(chunk)
        writer.end(int(self._clock.time()))
        await self._keep(request, caller, writer.response)
        return writer.response

    async def get(self, response_id: str, caller: Identity) -> StoredResponse:
        """A response that was kept. Raises `ResponseNotFound`."""
        found = await self._records.get(str(caller), response_id)
        if found is None:
            raise _unknown(response_id)
        return found

    async def delete(self, response_id: str, caller: Identity) -> None:
        """Forget a response; those that follow it cannot be continued then. Raises `ResponseNotFound`."""
        if not await self._records.remove(str(caller), response_id):
            raise _unknown(response_id)

    async def _asked(self, request: ResponsesRequest, caller: Identity) -> ChatRequest:
        earlier: list[Item] = []
        if request.previous_response_id is not None:
            turns = await self._records.chain(str(caller), request.previous_response_id)
            if not turns:
                raise _unknown(request.previous_response_id, param="previous_response_id")
            for turn in turns:
                earlier += [*turn.input, *msgspec.to_builtins(turn.response.output)]
        return chat_request(request, earlier)

    async def _keep(self, request: ResponsesRequest, caller: Identity, response: ModelResponse) -> None:
        if request.store is not False:
            await self._records.add(str(caller), StoredResponse(items_of(request), response))


def _unknown(response_id: str, **details: str) -> ResponseNotFound:
    return ResponseNotFound(
        f"there is no response {response_id[:80]!r} of yours",
        hint="responses are kept with store=true, for retention.responses_days, for who asked for them",
        **details,
    )

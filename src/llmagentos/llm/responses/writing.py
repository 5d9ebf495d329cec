"""The chunks of a chat as the events of a response.

in_progress -> completed    the model ended its answer
               incomplete   it reached max_output_tokens, or a filter ended it
               failed       an error came after the stream had begun
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmagentos.api.llm import ChatChunk, Delta, Usage
from llmagentos.api.responses import (
    Event,
    Incomplete,
    InputDetails,
    ItemStatus,
    ModelResponse,
    OutputDetails,
    ResponseEvent,
    ResponseFailure,
    ResponsesRequest,
    ResponseUsage,
)
from llmagentos.core.errors import LLMAgentOSError, TooManyRequests
from llmagentos.llm.responses.parts import FunctionCall, Growing, Numbers, Said, Talk


class Writer:
    """Of one response. `begin` with the first chunk, `add` every chunk, then `end` or `fail`."""

    def __init__(self, request: ResponsesRequest, first: ChatChunk) -> None:
        self._key = first.id.removeprefix("chatcmpl-")
        self._numbers = Numbers()
        self._items: list[Growing] = []
        self._ended: dict[int, ItemStatus] = {}
        self._talk: tuple[int, Talk] | None = None
        self._thinks = False
        self._calls: dict[int, FunctionCall] = {}
        self._finish: str | None = None
        self._usage: ResponseUsage | None = None
        self.response = _empty(request, f"resp_{self._key}", first)
        """As far as it is."""

    def begin(self) -> list[Event]:
        """The first events."""
        return [self._event("created"), self._event("in_progress")]

    def add(self, chunk: ChatChunk) -> list[Event]:
        """What a chunk adds."""
        if isinstance(chunk.usage, Usage):
            self._usage = _usage(chunk.usage)
        events: list[Event] = []
        for choice in chunk.choices:
            self._finish = choice.finish_reason or self._finish
            logprobs = (choice.logprobs or {}).get("content") or []
            events += self._delta(choice.delta, logprobs)
        return events

    def end(self, now: int) -> list[Event]:
        """The answer is over at `now`, seconds since the epoch."""
        reasons: dict[str | None, Incomplete] = {
            "length": Incomplete("max_output_tokens"),
            "content_filter": Incomplete("content_filter"),
        }
        why = reasons.get(self._finish)
        events = self._end_all("incomplete" if why else "completed")
        self.response = msgspec.structs.replace(
            self.response,
            status="incomplete" if why else "completed",
            incomplete_details=why,
            usage=self._usage,
            completed_at=None if why else now,
        )
        return [*events, self._event(self.response.status)]

    def fail(self, error: LLMAgentOSError) -> list[Event]:
        """The answer breaks off."""
        code = "rate_limit_exceeded" if isinstance(error, TooManyRequests) else error.code
        self._end_all("incomplete")
        failure = ResponseFailure(code, error.message)
        self.response = msgspec.structs.replace(self.response, status="failed", error=failure, usage=self._usage)
        return [self._event("failed")]

    def _delta(self, delta: Delta, logprobs: list[dict[str, Any]]) -> list[Event]:
        events: list[Event] = []
        if delta.reasoning_content:
            events += self._say("reasoning_text", delta.reasoning_content, [])
        if delta.content:
            events += self._say("output_text", delta.content, logprobs)
        if delta.refusal:
            events += self._say("refusal", delta.refusal, [])
        for part in delta.tool_calls or []:
            events += self._call(part)
        return events

    def _say(self, kind: Said, piece: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        thought = kind == "reasoning_text"
        events: list[Event] = []
        if self._talk is None or thought != self._thinks:
            events += self._end_talk("completed")
            index = len(self._items)
            talk = Talk(self._numbers, self._id("rs" if thought else "msg"), index, thought=thought)
            self._talk, self._thinks = (index, talk), thought
            self._items.append(talk)
            events += talk.begin()
        return [*events, *self._talk[1].add(kind, piece, logprobs)]

    def _call(self, part: dict[str, Any]) -> list[Event]:
        """A piece of a call of a function; engines may mix the pieces of several."""
        number, function = int(part.get("index") or 0), part.get("function") or {}
        events: list[Event] = []
        call = self._calls.get(number)
        if call is None:
            events += self._end_talk("completed")
            item_id, index = self._id("fc"), len(self._items)
            call_id = str(part.get("id") or f"call_{self._key}_{number}")
            call = FunctionCall(self._numbers, item_id, index, call_id, str(function.get("name") or ""))
            self._calls[number] = call
            self._items.append(call)
            events += call.begin()
        arguments = function.get("arguments") or ""
        return [*events, *(call.add(str(arguments)) if arguments else [])]

    def _end_talk(self, status: ItemStatus) -> list[Event]:
        if self._talk is None:
            return []
        index, self._talk = self._talk[0], None
        return self._end_item(index, status)

    def _end_all(self, status: ItemStatus) -> list[Event]:
        events = [event for i in range(len(self._items)) if i not in self._ended for event in self._end_item(i, status)]
        output = [item.item(self._ended[i]) for i, item in enumerate(self._items)]
        self.response = msgspec.structs.replace(self.response, output=output)
        return events

    def _end_item(self, index: int, status: ItemStatus) -> list[Event]:
        self._ended[index] = status
        return self._items[index].end(status)

    def _id(self, kind: str) -> str:
        return f"{kind}_{self._key}_{len(self._items)}"

    def _event(self, what: str) -> ResponseEvent:
        return ResponseEvent(f"response.{what}", self._numbers(), self.response)


def _empty(request: ResponsesRequest, response_id: str, first: ChatChunk) -> ModelResponse:
    """The response before its first item: what was asked for, with OpenAI's defaults."""
    text: dict[str, Any] = {"format": (request.text and request.text.format) or {"type": "text"}}
    if request.text and request.text.verbosity:
        text["verbosity"] = request.text.verbosity
    given = {
        name: value
        for name in _REPEATED
        if (value := getattr(request, name)) is not None and name in ModelResponse.__struct_fields__
    }
    return ModelResponse(response_id, first.created, first.model, "in_progress", text=text, **given)


_REPEATED = frozenset(ResponsesRequest.__struct_fields__) - {"input", "model", "text", "background"}


def _usage(usage: Usage) -> ResponseUsage:
    cached = usage.detail("prompt", "cached_tokens")
    thought = usage.detail("completion", "reasoning_tokens")
    return ResponseUsage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        InputDetails(cached),
        OutputDetails(thought),
    )

"""The Responses API's translation: whatever items come are read or refused, and the events make up the response."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.llm import ChatChunk, ChunkChoice, Delta, Message, Usage
from llmagentos.api.responses import (
    ItemEvent,
    PartEvent,
    PieceEvent,
    ReasoningSettings,
    ResponseEvent,
    ResponsesRequest,
    TextSettings,
)
from llmagentos.core.errors import InvalidInput, TooManyRequests
from llmagentos.llm.engines.engine import EngineFailed
from llmagentos.llm.responses.asking import chat_request
from llmagentos.llm.responses.items import messages
from llmagentos.llm.responses.writing import Writer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "input_text", "input_image"])
FIELDS = st.sampled_from(
    ["type", "role", "content", "text", "call_id", "name", "arguments", "output", "image_url", "refusal", "detail"]
)
ITEMS = st.dictionaries(
    FIELDS,
    WORDS
    | st.sampled_from(["user", "assistant"])
    | JSON
    | st.lists(st.dictionaries(FIELDS, WORDS | JSON, max_size=4), max_size=3),
    max_size=5,
)


@given(st.lists(ITEMS, max_size=4))
def test_any_items_are_read_or_refused(items: list[dict[str, Any]]) -> None:
    try:
        found = messages(items)
    except InvalidInput as refused:
        assert refused.details["param"].startswith("input[")
        return
    msgspec.convert(msgspec.to_builtins(found), list[Message])


def test_a_conversation_with_calls_of_tools() -> None:
    found = messages(
        [
            {"role": "developer", "content": "Be kind."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {
                "type": "function_call",
                "call_id": "c1",
                "name": "w",
                "arguments": "{}",
                "id": "x",
                "status": "completed",
            },
            {"type": "function_call", "call_id": "c2", "name": "w", "arguments": "[]"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Mixed."}]},
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:x", "detail": "low"}]},
        ]
    )
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "w", "arguments": "{}"}},
        {"id": "c2", "type": "function", "function": {"name": "w", "arguments": "[]"}},
    ]
    assert found == [
        Message("developer", "Be kind."),
        Message("user", "Weather?"),
        Message("assistant", tool_calls=calls, reasoning_content="Hm."),
        Message("tool", "rain", tool_call_id="c1"),
        Message("tool", "sun", tool_call_id="c2"),
        Message("assistant", "Mixed."),
        Message("user", [{"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}]),
    ]


def test_what_is_asked_becomes_a_chat() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True, "description": None}
    asked = ResponsesRequest(
        "hi",
        instructions="Be brief.",
        tools=[tool, tool | {"name": "g"}],
        tool_choice={"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]},
        parallel_tool_calls=False,
        text=TextSettings({"type": "json_schema", "name": "x", "schema": {}, "strict": True}, "low"),
        reasoning=ReasoningSettings("high"),
        max_output_tokens=9,
        top_logprobs=2,
    )
    chat = chat_request(asked, [{"role": "user", "content": "before"}])
    assert [(m.role, m.content) for m in chat.messages] == [
        ("system", "Be brief."),
        ("user", "before"),
        ("user", "hi"),
    ]
    assert chat.tools == [
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}, "strict": True}}
    ]
    assert (chat.tool_choice, chat.parallel_tool_calls, chat.limit) == ("required", False, 9)
    assert chat.response_format == {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}}
    assert (chat.reasoning_effort, chat.verbosity, chat.logprobs, chat.top_logprobs) == ("high", "low", True, 2)


def call(index: int, **function: str) -> Delta:
    return Delta(tool_calls=[{"index": index, "id": f"c{index}", "function": function}])


DELTAS = st.lists(
    st.sampled_from(
        [
            Delta(content="a"),
            Delta(content="好"),
            Delta(refusal="no"),
            Delta(reasoning_content="hm"),
            call(0, name="f", arguments="{"),
            call(1, name="g"),
            call(0, arguments="}"),
            call(1, arguments="[]"),
        ]
    ),
    max_size=12,
)


def chunk(delta: Delta, finish: str | None = None) -> ChatChunk:
    return ChatChunk("chatcmpl-k1", 5, "m", [ChunkChoice(0, delta, finish)])


def answered(deltas: list[Delta], finish: str = "stop") -> tuple[Writer, list[Any]]:
    chunks = [chunk(delta) for delta in deltas] + [chunk(Delta(), finish)]
    chunks.append(ChatChunk("chatcmpl-k1", 5, "m", [], Usage(3, 4, 7, {"cached_tokens": 2})))
    writer = Writer(ResponsesRequest("hi"), chunks[0])
    events: list[Any] = writer.begin()
    for each in chunks:
        events += writer.add(each)
    return writer, [*events, *writer.end(9)]


@given(DELTAS)
def test_the_events_make_up_the_response(deltas: list[Delta]) -> None:
    writer, events = answered(deltas)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    added = {e.output_index: e.item for e in events if isinstance(e, ItemEvent) and e.type.endswith("added")}
    done = {e.output_index: e.item for e in events if isinstance(e, ItemEvent) and e.type.endswith("done")}
    assert list(added) == list(range(len(writer.response.output)))
    assert [done[index] for index in added] == writer.response.output
    assert [added[index].id for index in added] == [item.id for item in writer.response.output]
    for item in writer.response.output:
        pieces = [e for e in events if isinstance(e, PieceEvent) and e.item_id == item.id]
        said = "".join(e.delta for e in pieces if isinstance(e.delta, str))
        if item.__struct_config__.tag == "function_call":
            assert said == item.arguments  # type: ignore[union-attr]
        else:
            assert said == "".join(getattr(part, "text", "") + getattr(part, "refusal", "") for part in item.content)  # type: ignore[union-attr]
            parts = [e.part for e in events if isinstance(e, PartEvent) and e.item_id == item.id and "done" in e.type]
            assert parts == item.content  # type: ignore[union-attr]
    assert isinstance(events[-1], ResponseEvent)
    assert (events[-1].type, events[-1].response) == ("response.completed", writer.response)
    usage = writer.response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens) == (3, 4, 2)


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_is_cut_is_incomplete(finish: str, reason: str) -> None:
    writer, events = answered([Delta(content="a")], finish)
    assert events[-1].type == "response.incomplete"
    assert writer.response.incomplete_details is not None
    assert writer.response.incomplete_details.reason == reason
    assert writer.response.output[0].status == "incomplete"


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineFailed("gone"), "engine_failed"), (TooManyRequests("slow", retry_after=1), "rate_limit_exceeded")],
)
def test_an_error_is_the_last_event(error: Any, code: str) -> None:
    first = chunk(Delta(content="a"))
    writer = Writer(ResponsesRequest("hi", metadata={"k": "v"}), first)
    events = [*writer.begin(), *writer.add(first), *writer.fail(error)]
    last = events[-1]
    assert isinstance(last, ResponseEvent)
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert last.response.error is not None
    assert last.response.error.code == code
    assert [item.status for item in last.response.output] == ["incomplete"]
    assert last.response.metadata == {"k": "v"}

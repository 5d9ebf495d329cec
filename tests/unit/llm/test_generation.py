"""An answer that is interrupted and continued is the answer without interruptions, whatever the moments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from llmagentos.api.llm import ChatChunk, ChatRequest, ChunkChoice, Delta, Message, Timings, Usage
from llmagentos.llm.generation import TRANSITIONS, Generation, interruptible

HI = [Message("user", "hi")]
PROMPT = 7


def engine(answer: list[str], request: ChatRequest, *, tells: bool, together: int) -> Iterator[ChatChunk]:
    """Goes on after the text that the last message begins with; `together` tokens make one piece."""
    last = request.messages[-1]
    begun = str(last.content) if last.role == "assistant" else ""
    done = next(n for n in range(len(answer) + 1) if "".join(answer[:n]) == begun)
    limit = len(answer) - done if request.limit is None else min(request.limit, len(answer) - done)
    yield ChatChunk(choices=[ChunkChoice(0, Delta(role="assistant"))])
    for at in range(0, limit, together):
        size = min(together, limit - at)
        text = "".join(answer[done + at : done + at + size])
        timings = Timings(1, PROMPT + done - 1, at + size) if tells else UNSET
        yield ChatChunk(choices=[ChunkChoice(0, Delta(content=text))], timings=timings)
    reason = "stop" if done + limit == len(answer) else "length"
    yield ChatChunk(choices=[ChunkChoice(0, Delta(), reason)])
    yield ChatChunk(usage=Usage(PROMPT + done, limit, PROMPT + done + limit, {"cached_tokens": done}))


def run(
    answer: list[str], request: ChatRequest, interrupt: list[bool], *, tells: bool, together: int = 1
) -> tuple[str, str | None, Usage, Generation, int]:
    generation, wishes = Generation(request, yields=True), iter(interrupt)
    text, reason, usage, suspensions = "", None, Usage(), 0
    while True:
        for chunk in engine(answer, generation.request, tells=tells, together=together):
            generation.took(chunk)
            text += chunk.text
            if isinstance(chunk.usage, Usage):
                usage = generation.usage(chunk.usage)
            for choice in chunk.choices:
                reason = choice.finish_reason or reason
            if next(wishes, False) and generation.suspendable:
                generation.suspend()
                suspensions += 1
                break
        if generation.state != "suspended":
            return text, reason, usage, generation, suspensions
        generation.resume()


@given(
    st.lists(st.sampled_from(["a", " b", "好", "\n"]), min_size=1, max_size=12),
    st.lists(st.booleans(), max_size=40),
    st.none() | st.integers(1, 14),
    st.booleans(),
)
def test_interruptions_change_nothing(answer: list[str], interrupt: list[bool], limit: int | None, tells: bool) -> None:
    answer = [f"{number}{word}" for number, word in enumerate(answer)]  # each beginning is one place
    request = ChatRequest(HI, max_tokens=limit, temperature=0)
    text, reason, usage, generation, _ = run(answer, request, interrupt, tells=tells)
    size = min(len(answer), limit or len(answer))
    assert text == "".join(answer[:size])
    assert reason == ("stop" if size == len(answer) else "length")
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (PROMPT, size, PROMPT + size)
    assert (generation.state, generation.tokens) == ("ended", size)


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 12))
def test_a_piece_of_several_tokens_counts_as_what_the_engine_says(interrupt: list[bool], limit: int) -> None:
    answer = [f"{number}," for number in range(12)]
    request = ChatRequest(HI, max_completion_tokens=limit)
    text, _, usage, generation, _ = run(answer, request, interrupt, tells=True, together=3)
    assert (text, usage.completion_tokens, generation.tokens) == ("".join(answer[:limit]), limit, limit)


def test_every_part_brings_at_least_one_token() -> None:
    answer = [f"{number}," for number in range(5)]
    *_, suspensions = run(answer, ChatRequest(HI), [True] * 100, tells=True)
    assert suspensions == 5


def test_the_beginning_that_the_caller_gave_is_continued() -> None:
    begun = ChatRequest([*HI, Message("assistant", "0,1,")], max_tokens=3)
    text, _, usage, *_ = run([f"{n}," for n in range(9)], begun, [True] * 9, tells=False)
    assert (text, usage.completion_tokens) == ("2,3,4,", 3)


@pytest.mark.parametrize(
    ("more", "can"),
    [
        ({}, True),
        ({"seed": 1, "temperature": 0}, True),
        ({"stop": ["x"], "logprobs": True, "logit_bias": {"1": 2.0}, "n": 1}, True),
        ({"response_format": {"type": "text"}}, True),
        ({"seed": 1, "temperature": 0.5}, False),
        ({"seed": 1}, False),
        ({"response_format": {"type": "json_object"}}, False),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, False),
        ({"n": 2}, False),
        ({"messages": [*HI, Message("assistant", tool_calls=[{"id": "x"}])]}, False),
    ],
)
def test_what_can_be_interrupted(more: dict[str, Any], can: bool) -> None:
    request = ChatRequest(**({"messages": HI} | more))
    assert interruptible(request) == can
    generation = Generation(request, yields=True)
    generation.took(ChatChunk(choices=[ChunkChoice(0, Delta(content="x"))]))
    assert generation.suspendable == can
    assert (generation.request.timings_per_token is True) == can
    assert not Generation(request, yields=False).suspendable


@pytest.mark.parametrize(
    "delta", [Delta(reasoning_content="hm"), Delta(tool_calls=[{"index": 0}]), Delta(refusal="no")]
)
def test_once_there_is_more_than_text_it_is_not_interrupted(delta: Delta) -> None:
    generation = Generation(ChatRequest(HI), yields=True)
    generation.took(ChatChunk(choices=[ChunkChoice(0, delta)]))
    generation.took(ChatChunk(choices=[ChunkChoice(0, Delta(content="x"))]))
    assert not generation.suspendable
    with pytest.raises(ValueError, match="cannot be interrupted"):
        generation.suspend()


def test_only_what_the_table_has_happens() -> None:
    generation = Generation(ChatRequest(HI), yields=True)
    with pytest.raises(ValueError, match="running cannot be running"):
        generation.resume()
    generation.took(ChatChunk(choices=[ChunkChoice(0, Delta(content="x"))]))
    generation.suspend()
    with pytest.raises(ValueError, match="cannot be interrupted"):
        generation.suspend()
    generation.resume()
    generation.took(ChatChunk(choices=[ChunkChoice(0, Delta(), "stop")]))
    assert not TRANSITIONS[generation.state]
    with pytest.raises(ValueError, match="ended cannot be running"):
        generation.resume()

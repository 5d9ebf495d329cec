"""What a caller asks for reaches the engine as it was, and what comes back keeps its form."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from llmagentos.api.completions import CompletionRequest
from llmagentos.api.llm import ChatChunk, Usage
from llmagentos.core.config.schema import OpenAI
from llmagentos.core.errors import InvalidInput
from llmagentos.llm.completions import pieces, whole
from llmagentos.llm.engines.engine import NoCompletions
from llmagentos.security.identity import Identity, Kind
from support.gate import Gate, ask, gate
from support.scripted import Raw, Refuse, Step, scripted_engine

pytestmark = pytest.mark.anyio
ME = Identity(Kind.ADMIN, "me")

ASKED: dict[str, Any] = {
    "temperature": 0.3,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "seed": 7,
    "stop": ["END", "\n\n"],
    "n": 2,
    "logprobs": True,
    "top_logprobs": 3,
    "logit_bias": {"15": -100.0},
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "repeat_penalty": 1.1,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    "reasoning_effort": "low",
    "max_tokens": 9,
    "user": "u1",
}


async def test_every_field_of_a_chat_reaches_the_engine(tmp_path: Any) -> None:
    async with (
        scripted_engine(lambda _: ["ok"]) as engine,
        gate(tmp_path, {"m": OpenAI(url=engine.url, model="upstream", preemptive=True)}) as it,
    ):
        await it.gateway.complete(ask(**ASKED), ME)
        sent = engine.requests[0]
        assert {name: sent.pop(name) for name in ASKED} == ASKED
        assert sent == {
            "messages": [{"role": "user", "content": "hi"}],
            "model": "upstream",
            "stream": True,
            "stream_options": {"include_usage": True},
        }


def choice(index: int, text: str, token: float | None = None, **more: Any) -> Raw:
    logprobs = None if token is None else {"content": [{"token": text, "logprob": token}]}
    found = {"index": index, "delta": {"content": text}, "logprobs": logprobs, "finish_reason": None} | more
    return Raw(f"data: {json.dumps({'choices': [found]})}\n\n")


def used(tokens: int) -> Raw:
    usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
    return Raw(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n")


async def test_several_answers_with_their_logprobs(tmp_path: Any) -> None:
    """llama.cpp tells the usage of each answer, and mixes their pieces."""
    script = [choice(1, "b", -1.0), choice(0, "a", -2.0), choice(1, "B", -3.0, finish_reason="length"), used(2)]
    async with (
        scripted_engine(lambda _: script) as engine,
        gate(tmp_path, {"m": OpenAI(url=engine.url)}) as it,
    ):
        found = await it.gateway.complete(ask(n=2, max_tokens=2, logprobs=True), ME)
        assert [(c.index, c.message.content, c.finish_reason) for c in found.choices] == [
            (0, "a", "stop"),
            (1, "bB", "length"),
        ]
        assert [len((c.logprobs or {})["content"]) for c in found.choices] == [1, 2]
        assert found.usage.completion_tokens == 2 + len(script)  # what it said of both
        chunks = [chunk async for chunk in it.gateway.chat(ask(n=2), ME)]
        assert [c.delta.role for chunk in chunks[:3] for c in chunk.choices] == ["assistant", "assistant", None]


# --- completions ------------------------------------------------------------------------------


def text(piece: str, **more: Any) -> Raw:
    return Raw(f"data: {json.dumps({'choices': [{'index': 0, 'text': piece} | more]})}\n\n")


def writes(it: Gate) -> Any:
    def write(part: CompletionRequest) -> AsyncGenerator[ChatChunk, None]:
        return it.gateway.write(part, ME)

    return write


def echoing(request: dict[str, Any]) -> Sequence[Step]:
    return [Raw("data: null\n\n"), text(request["prompt"].upper()), text("!")]


async def test_prompts_are_calls_of_their_own_under_one_id(tmp_path: Any) -> None:
    async with (
        scripted_engine(echoing) as engine,
        gate(tmp_path, {"m": OpenAI(url=engine.url, slots=1)}) as it,
    ):
        asked = CompletionRequest(["a", "b", "c"], max_tokens=4, logit_bias={"1": 2.0}, seed=3)
        found = await whole(asked, writes(it))
        assert [(c.index, c.text, c.finish_reason) for c in found.choices] == [
            (0, "A!", "stop"),
            (1, "B!", "stop"),
            (2, "C!", "stop"),
        ]
        assert found.usage == Usage(33, 9, 42)
        assert [request["prompt"] for request in engine.requests] == ["a", "b", "c"]
        assert {(r["max_tokens"], r["seed"], r["logit_bias"]["1"]) for r in engine.requests} == {(4, 3, 2.0)}
        streamed = [piece async for piece in pieces(asked, writes(it))]
        assert len({piece.id for piece in streamed}) == 1
        assert [call.operation for call in await it.ended()] == ["text_completion"] * 6


async def test_logprobs_of_both_forms(tmp_path: Any) -> None:
    theirs = {"tokens": [" x"], "token_logprobs": [-1.5], "top_logprobs": [{" x": -1.5}], "text_offset": [1]}
    ours = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -0.5}]}]}
    async with (
        scripted_engine(lambda _: [text("a", logprobs=ours), text(" x", logprobs=theirs)]) as engine,
        gate(tmp_path, {"m": OpenAI(url=engine.url)}) as it,
    ):
        logprobs = (await whole(CompletionRequest("p", logprobs=1), writes(it))).choices[0].logprobs
        assert logprobs is not None
        assert (logprobs.tokens, logprobs.token_logprobs, logprobs.text_offset) == (["a", " x"], [-0.5, -1.5], [0, 1])
        assert logprobs.top_logprobs == [{"a": -0.5}, {" x": -1.5}]


@pytest.mark.parametrize("prompts", ["a", ["a", "b", "c"]])
async def test_an_engine_without_completions_says_so(tmp_path: Any, prompts: str | list[str]) -> None:
    async with (
        scripted_engine(lambda _: Refuse(404, "not here")) as engine,
        gate(tmp_path, {"m": OpenAI(url=engine.url, slots=1)}) as it,
    ):
        with pytest.raises(NoCompletions, match="takes no completions") as refused:
            await whole(CompletionRequest(prompts), writes(it))
        assert isinstance(refused.value, InvalidInput)
        assert (await it.gateway.models())[0].running == 0

"""Calls of programs and plain callers: the model reads placeholders, the caller gets the values, also of streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llmagentos.api.completions import CompletionRequest
from llmagentos.api.llm import ChatChunk, ChunkChoice, Delta, EmbeddingRequest, Message
from llmagentos.core.config.guardrails import Guardrails
from llmagentos.core.config.schema import OpenAI
from llmagentos.llm.assembly import assemble
from llmagentos.llm.redacted import RedactedCalls, Restoring
from llmagentos.security.identity import Identity, Kind
from llmagentos.security.redaction import Vault
from support.gate import ask, gate
from support.scripted import Raw, ScriptedEngine, Step, scripted_engine

pytestmark = pytest.mark.anyio
ME, PROGRAM, MODULE = Identity(Kind.ADMIN, "me"), Identity(Kind.RUN, "r1"), Identity(Kind.MODULE, "shop")
MAIL, PHONE = "ada@example.com", "13800138000"
RAILS = Guardrails(redact=["email", "phone"])
Script = Callable[[dict[str, Any]], Sequence[Step]]


@asynccontextmanager
async def redacted(
    tmp_path: Any, script: Script, rails: Guardrails = RAILS, programs: Guardrails = RAILS
) -> AsyncIterator[tuple[RedactedCalls, ScriptedEngine]]:
    async def rails_of(_: str) -> Guardrails:
        return programs

    async with scripted_engine(script) as engine:
        models = {"m": OpenAI(url=engine.url), "e": OpenAI(url=engine.url, kind="embedding")}
        async with gate(tmp_path, models) as it:
            yield RedactedCalls(it.gateway, rails, rails_of), engine


def echo(request: dict[str, Any]) -> Sequence[Step]:
    """What was asked, letter by letter."""
    return list(f"You said: {request['messages'][-1]['content']}")


@pytest.mark.parametrize("who", [{"caller": ME}, {"caller": PROGRAM, "run_id": "r1"}])
@pytest.mark.parametrize("streams", [True, False])
async def test_the_model_reads_placeholders_and_the_caller_values(tmp_path: Any, who: Any, streams: bool) -> None:
    text = f"Write to {MAIL}, call {PHONE}, then {MAIL} <again>"
    async with redacted(tmp_path, echo) as (calls, engine):
        found = await (assemble(calls.chat(ask(text), **who)) if streams else calls.complete(ask(text), **who))
        assert found.choices[0].message.content == f"You said: {text}"
        assert (
            engine.requests[0]["messages"][0]["content"] == "Write to <EMAIL_1>, call <PHONE_1>, then <EMAIL_1> <again>"
        )


async def test_all_that_a_conversation_holds(tmp_path: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": json.dumps({"to": MAIL})}}
    messages = [
        Message("system", f"You work for {MAIL}."),
        Message("user", [{"type": "text", "text": f"call {PHONE}"}, {"type": "image_url", "image_url": {"url": "x"}}]),
        Message("assistant", None, tool_calls=[call]),
        Message("tool", json.dumps({"sent": [MAIL]}), tool_call_id="c"),
    ]
    async with redacted(tmp_path, lambda _: ["ok"]) as (calls, engine):
        await calls.complete(replace(ask(), messages=messages), ME)
        sent = json.dumps(engine.requests[-1])
        assert MAIL not in sent
        assert PHONE not in sent
        assert json.loads(engine.requests[-1]["messages"][3]["content"]) == {"sent": ["<EMAIL_1>"]}


async def test_calls_of_tools_get_the_values_as_json_has_them(tmp_path: Any) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIabc\n-----END PRIVATE KEY-----"
    pieces = ['{"ke', 'y": "<KE', "Y_", '1>"}']
    steps = [{"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": pieces[0]}}]}]
    steps += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces[1:]]
    rails = Guardrails(redact=["keys"])
    async with redacted(tmp_path, lambda _: steps, rails) as (calls, engine):
        tools = [{"type": "function", "function": {"name": "f"}}]
        for found in (
            await assemble(calls.chat(ask(key, tools=tools), ME)),
            await calls.complete(ask(key, tools=tools), ME),
        ):
            (call,) = found.choices[0].message.tool_calls  # type: ignore[misc]
            assert json.loads(call["function"]["arguments"]) == {"key": key}
        assert "MIIabc" not in json.dumps(engine.requests)


@pytest.mark.parametrize(
    ("who", "rails", "programs"),
    [
        ({"caller": ME}, Guardrails(), RAILS),
        ({"caller": PROGRAM, "run_id": "r1"}, RAILS, Guardrails()),
        ({"caller": MODULE, "run_id": "r1"}, RAILS, RAILS),  # an agent's host, which has redacted already
    ],
)
async def test_where_it_is_off_nothing_is_changed(tmp_path: Any, who: Any, rails: Any, programs: Any) -> None:
    async with redacted(tmp_path, echo, rails, programs) as (calls, engine):
        assert (await calls.complete(ask(MAIL), **who)).choices[0].message.content == f"You said: {MAIL}"
        await assemble(calls.chat(ask(MAIL), **who))
        assert [request["messages"][0]["content"] for request in engine.requests] == [MAIL] * 2


async def test_long_ones_are_redacted_beside_the_event_loop(tmp_path: Any) -> None:
    text = f"{MAIL} and so on, " * 12_000
    async with redacted(tmp_path, lambda _: ["<EMAIL", "_1>"]) as (calls, engine):
        assert (await calls.complete(ask(text), ME)).choices[0].message.content == MAIL
        assert (await assemble(calls.chat(ask(text), ME))).choices[0].message.content == MAIL
        assert MAIL not in json.dumps(engine.requests)


async def test_without_restore_the_answer_keeps_placeholders(tmp_path: Any) -> None:
    async with redacted(tmp_path, echo, Guardrails(redact=["email"], restore=False)) as (calls, _):
        assert (await assemble(calls.chat(ask(MAIL), ME))).choices[0].message.content == "You said: <EMAIL_1>"


async def test_completions_and_embeddings(tmp_path: Any) -> None:
    def script(request: dict[str, Any]) -> Sequence[Step]:
        texts = [{"index": 0, "text": text, "finish_reason": None} for text in ("so ", request.get("prompt", ""))]
        return [Raw(f"data: {json.dumps({'choices': [text]})}\n\n") for text in texts]

    async with redacted(tmp_path, script) as (calls, engine):
        found = await assemble(calls.write(CompletionRequest(f"mail {MAIL}"), ME))
        assert found.choices[0].message.content == f"so mail {MAIL}"
        await calls.embed(EmbeddingRequest([f"{MAIL} here", "there"], "e"), ME)
        assert [request.get("prompt") or request["input"] for request in engine.requests] == [
            "mail <EMAIL_1>",
            ["<EMAIL> here", "there"],
        ]


@given(st.lists(st.sampled_from([MAIL, PHONE, "<", "<EMAIL", "_1>", "<b>", "a < b ", "x", "ID_CARD_", " "])), st.data())
def test_however_a_stream_is_cut_it_says_the_same(parts: list[str], data: st.DataObject) -> None:
    vault = Vault(["email", "phone"])
    text = vault.redact(" ".join(parts))
    restoring, heard, place = Restoring(vault, form=False), "", 0
    while place < len(text):
        size = data.draw(st.integers(1, 8))
        chunk = ChatChunk(choices=[ChunkChoice(delta=Delta(content=text[place : place + size]))])
        restored = restoring.chunk(chunk)
        heard += restored.text if restored is not None else ""
        place += size
    last = restoring.chunk(ChatChunk(choices=[ChunkChoice(finish_reason="stop")]))
    assert last is not None
    assert heard + last.text == vault.restore(text)

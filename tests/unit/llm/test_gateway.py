"""The gate with a scripted engine behind it: what passes through, what is refused, and that slots come back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from llmagentos.api.llm import CallInfo, ChatRequest, EmbeddingRequest, Message, Usage
from llmagentos.core.clock import SystemClock
from llmagentos.core.config import Config
from llmagentos.core.config.schema import LlamaCpp, OpenAI, SecretRef
from llmagentos.core.errors import ConfigError, DeadlineExceeded, InvalidInput, LLMAgentOSError, TooManyRequests
from llmagentos.core.state import StateDirectory
from llmagentos.kernel.scheduling import QueueFull
from llmagentos.llm.engines import wishes
from llmagentos.llm.engines.engine import (
    ContextOverflow,
    EngineFailed,
    EngineStalled,
    EngineUnreachable,
    ModelLoading,
)
from llmagentos.llm.engines.local import Report, place
from llmagentos.llm.gateway import Gateway, ModelNotFound
from llmagentos.llm.metering import CallCancelled, Meter
from llmagentos.llm.models import configured
from llmagentos.llm.residence import residence_of
from llmagentos.security.identity import Identity, Kind
from llmagentos.storage.database import StorageUnavailable
from support.scripted import Drop, End, Hang, Raw, Refuse, Script, ScriptedEngine, scripted_engine
from support.server import eventually

pytestmark = pytest.mark.anyio
ME = Identity(Kind.ADMIN, "me")


@dataclass
class House:
    """A gateway, its engine, and what they left behind."""

    gateway: Gateway
    engine: ScriptedEngine
    meter: Meter
    calls: list[CallInfo]
    deltas: list[tuple[str, str]] = field(default_factory=list)

    async def ended(self) -> CallInfo:
        await self.meter.flush()
        return self.calls[-1]

    async def running(self) -> int:
        return (await self.gateway.models())[0].running


@asynccontextmanager
async def house(tmp_path: Any, script: Script, **settings: Any) -> AsyncIterator[House]:
    async with scripted_engine(script) as engine:
        models = {
            "talker": OpenAI(url=engine.url, model="upstream", aliases=["default", "t"], **settings),
            "vectors": OpenAI(url=engine.url, kind="embedding"),
        }
        calls: list[CallInfo] = []

        async def store(ended: Sequence[CallInfo]) -> None:
            calls.extend(ended)

        clock = SystemClock()
        meter = Meter(store, clock)
        deltas: list[tuple[str, str]] = []
        gateway = Gateway(
            configured(Config(models=models), StateDirectory(tmp_path), clock),
            meter=meter,
            clock=clock,
        )
        gateway.tell_pieces(lambda run, text: deltas.append((run, text)))
        yield House(gateway, engine, meter, calls, deltas)
        await gateway.aclose()


def ask(text: str = "hi", **more: Any) -> ChatRequest:
    return ChatRequest([Message("user", text)], **more)


async def test_an_answer_passes_in_chunks_under_our_names(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: ["Hel", "lo"]) as it:
        chunks = [chunk async for chunk in it.gateway.chat(ask(seed=7), ME)]
        assert "".join(chunk.text for chunk in chunks) == "Hello"
        assert {chunk.model for chunk in chunks} == {"talker"}
        assert len({chunk.id for chunk in chunks}) == 1
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage == Usage(11, 2, 13)
        asked = it.engine.requests[0]
        assert (asked["model"], asked["stream"], asked["seed"]) == ("upstream", True, 7)
        assert asked["stream_options"] == {"include_usage": True}


async def test_a_whole_answer_is_put_together_and_metered(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: [{"role": "assistant", "content": ""}, "Hel", "lo"]) as it:
        answer = await it.gateway.complete(ask(), ME, run_id="r1", purpose="answer")
        assert (answer.text, answer.choices[0].finish_reason) == ("Hello", "stop")
        call = await it.ended()
        assert (call.model, call.engine, call.caller, call.run_id) == ("talker", "openai", "admin:me", "r1")
        assert (call.status, call.tokens_in, call.tokens_out) == ("succeeded", 11, 3)
        assert call.ttft_s is not None
        assert 0 <= call.queue_s <= call.ttft_s <= call.duration_s < 60
        assert it.deltas == [("r1", "Hel"), ("r1", "lo")]


async def test_only_text_of_answers_is_shown_to_who_watches(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: ["Hel", "lo"]) as it:
        await it.gateway.complete(ask(), ME, run_id="r1", purpose="tool")
        await it.gateway.complete(ask(), ME)
        assert it.deltas == []


async def test_tool_calls_and_logprobs_are_put_together(tmp_path: Any) -> None:
    def part(**function: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "function": function}]}

    first = {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    async with house(tmp_path, lambda _: [first, part(arguments='{"a"'), part(arguments=":1}")]) as it:
        message = (await it.gateway.complete(ask(), ME)).choices[0].message
        assert message.content is None
        assert message.tool_calls == [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        ]


async def test_embeddings_come_in_the_order_of_the_texts(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: []) as it:
        found = await it.gateway.embed(EmbeddingRequest(["a", "bbb"], input_type="query"), ME)
        assert [vector.embedding for vector in found.data] == [[1.0, 1.0], [3.0, 1.0]]
        assert (found.model, it.engine.requests[0]["input_type"]) == ("vectors", "query")
        assert (await it.ended()).tokens_in == 7


async def test_names_and_aliases(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: ["x"]) as it:
        for name in ("talker", "t", "default"):
            assert (await it.gateway.complete(ask(model=name), ME)).model == "talker"
        with pytest.raises(ModelNotFound, match="there are default, t, talker, vectors") as unknown:
            await it.gateway.complete(ask(model="walker"), ME)
        assert unknown.value.hint == "did you mean 'talker'?"
        with pytest.raises(InvalidInput, match="for embedding, not for chat"):
            await it.gateway.complete(ask(model="vectors"), ME)


@pytest.mark.parametrize(
    ("refusal", "error", "text"),
    [
        (
            Refuse(400, {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 90, "n_ctx": 64}}),
            ContextOverflow,
            "90 tokens, more than the 64",
        ),
        (Refuse(400, {"error": {"code": "context_length_exceeded", "message": "too long"}}), ContextOverflow, "long"),
        (Refuse(400, {"error": {"message": "bad seed"}}), InvalidInput, "bad seed"),
        (Refuse(401, {"error": {"message": "no"}}), EngineFailed, "HTTP 401"),
        (Refuse(404, "<html>not here"), EngineFailed, "HTTP 404"),
        (Refuse(429, {"error": "slow down"}, {"Retry-After": "900"}), TooManyRequests, "slow down"),
        (Refuse(500, {"detail": "boom"}), EngineFailed, "boom"),
        (Refuse(503, {"error": {"message": "Loading model"}}), ModelLoading, "is loading"),
        (Refuse(200, {"choices": []}), EngineFailed, "instead of an event stream"),
    ],
)
async def test_refusals_of_the_engine(tmp_path: Any, refusal: Refuse, error: type[LLMAgentOSError], text: str) -> None:
    async with house(tmp_path, lambda _: refusal) as it:
        with pytest.raises(error, match=text) as refused:
            await it.gateway.complete(ask(), ME)
        if isinstance(refused.value, TooManyRequests):
            assert refused.value.retry_after == 900
        assert (await it.running(), (await it.ended()).status) == (0, "failed")


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Drop(), "ended while it was generating"),
        (End(), "ended while it was generating"),
        (Raw("data: {not json\n\n"), "no chunk of an answer"),
        (Raw('data: {"choices": [{"index": "x"}]}\n\n'), "no chunk of an answer"),
        (Raw('data: {"error": {"message": "out of memory"}}\n\n'), "out of memory"),
    ],
)
async def test_an_engine_that_fails_in_the_middle(tmp_path: Any, step: Drop | End | Raw, text: str) -> None:
    async with house(tmp_path, lambda _: ["Hel", step, "lo"]) as it:
        with pytest.raises(EngineFailed, match=text):
            await it.gateway.complete(ask(), ME)
        assert (await it.running(), (await it.ended()).status) == (0, "failed")


async def test_a_kept_connection_that_ends_unanswered_is_replaced(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: ["ok"]) as it:
        it.engine.leave_after(1)
        for _ in range(4):
            assert (await it.gateway.complete(ask(), ME)).text == "ok"
        assert len(it.engine.requests) == 4
        it.engine.leave_after(0)
        with pytest.raises(EngineFailed):
            await it.gateway.complete(ask(), ME)


async def test_comments_and_unknown_lines_are_skipped(tmp_path: Any) -> None:
    noise = Raw(": keep-alive\n\nevent: x\nretry: 1\n\n")
    async with house(tmp_path, lambda _: [noise, "ok", noise]) as it:
        assert (await it.gateway.complete(ask(), ME)).text == "ok"


async def test_a_caller_that_stops_frees_the_slot_and_stops_the_engine(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: ["Hel", Hang()]) as it:
        async with aclosing(it.gateway.chat(ask(), ME)) as chunks:
            assert (await anext(chunks)).text == "Hel"
            assert await it.running() == 1
        assert await it.running() == 0
        await eventually(lambda: it.engine.hung_up == 1)
        assert (await it.ended()).status == "cancelled"


async def test_a_cancelled_caller_frees_the_slot(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: ["Hel", Hang()]) as it:
        task = asyncio.create_task(it.gateway.complete(ask(), ME))
        await eventually(lambda: it.engine.active)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await it.running() == 0
        await eventually(lambda: it.engine.hung_up == 1)


async def test_cancelling_a_run_ends_its_calls_alone(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: ["Hel", Hang()], slots=2) as it:
        mine = [asyncio.create_task(it.gateway.complete(ask(), ME, run_id="r1")) for _ in range(3)]
        other = asyncio.create_task(it.gateway.complete(ask(), ME, run_id="r2"))
        await eventually(lambda: it.engine.active == 2)
        assert it.gateway.cancel_run("r1") == 3  # two that run and one that waits
        ended = await asyncio.gather(*mine, return_exceptions=True)
        assert [type(error) for error in ended] == [CallCancelled] * 3
        await eventually(lambda: it.engine.hung_up == 2 and it.engine.active == 1)
        assert not other.done()
        assert it.gateway.cancel_run("r1") == 0
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        assert await it.running() == 0


async def test_slots_are_a_limit_and_the_queue_is_bounded(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: [Hang()], slots=1, queue=1) as it:
        first = asyncio.create_task(it.gateway.complete(ask(), ME))
        await eventually(lambda: it.engine.active == 1)
        second = asyncio.create_task(it.gateway.complete(ask(), ME))
        await asyncio.sleep(0)
        info = (await it.gateway.models())[0]
        assert (info.running, info.waiting, info.slots, info.queue) == (1, 1, 1, 1)
        with pytest.raises(QueueFull) as full:
            await it.gateway.complete(ask(), ME)
        assert full.value.retry_after >= 1
        first.cancel()
        await eventually(lambda: len(it.engine.requests) == 2)  # the second took the slot
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert await it.running() == 0


async def test_deadlines_hold_in_the_queue_and_while_generating(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: ["Hel", Hang()], slots=1) as it:
        first = asyncio.create_task(it.gateway.complete(ask(), ME))
        await eventually(lambda: it.engine.active == 1)
        with pytest.raises(DeadlineExceeded, match="deadline"):
            await it.gateway.complete(ask(), ME, timeout=0.05)
        assert len(it.engine.requests) == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        with pytest.raises(DeadlineExceeded, match="deadline"):
            await it.gateway.complete(ask(), ME, timeout=1.0)
        assert len(it.engine.requests) == 2
        assert await it.running() == 0


async def test_an_engine_that_says_nothing_is_given_up(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: ["Hel", Hang()], timeout_s=0.5) as it:
        with pytest.raises(EngineStalled, match=r"nothing for 0\.5 s"):
            await it.gateway.complete(ask(), ME)
        await eventually(lambda: it.engine.hung_up == 1)


async def test_the_key_is_sent_and_a_missing_one_is_said(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "k1")
    async with house(tmp_path, lambda _: ["ok"], api_key=SecretRef(env="THEIR_KEY")) as it:
        await it.gateway.complete(ask(), ME)
        assert it.engine.headers[-1]["authorization"] == "Bearer k1"
        monkeypatch.delenv("THEIR_KEY")
        with pytest.raises(ConfigError, match="THEIR_KEY is not set"):
            await it.gateway.complete(ask(), ME)


async def test_an_unreachable_url_is_a_clear_error(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: []) as it:
        url = it.engine.url
    clock = SystemClock()
    models = configured(Config(models={"far": OpenAI(url=url)}), StateDirectory(tmp_path), clock)
    gateway = Gateway(models, meter=it.meter, clock=clock)
    with pytest.raises(EngineUnreachable, match="'far' is unreachable: cannot connect"):
        await gateway.complete(ask(), ME)
    info = (await gateway.models())[0]
    assert info.state == "unreachable"
    assert "cannot connect" in (info.note or "")
    await gateway.aclose()


async def test_an_alias_may_not_be_taken_twice(tmp_path: Any) -> None:
    models = {"a": OpenAI(url="http://x/v1", aliases=["m"]), "b": OpenAI(url="http://x/v1", aliases=["m"])}
    with pytest.raises(ConfigError, match=r"models\.b\.aliases: 'm' is already the name of an alias of 'a'"):
        configured(Config(models=models), StateDirectory(tmp_path), SystemClock())


async def test_records_wait_until_storage_works_again() -> None:
    stored: list[CallInfo] = []
    broken = True

    async def store(calls: Sequence[CallInfo]) -> None:
        if broken:
            raise OSError("disk full")
        stored.extend(calls)

    meter = Meter(store, SystemClock())
    meter.begin("chat", model="m", engine="e", caller="me", run_id=None).end(None)
    with pytest.raises(OSError, match="disk full"):
        await meter.flush()
    broken = False
    await meter.flush()
    await meter.flush()
    assert len(stored) == 1


async def test_who_keeps_records_elsewhere_is_told_of_each_until_that_works() -> None:
    """As the log of a program's run does, which must not lack a call for a moment without the database."""
    stored: list[str] = []
    told: list[str] = []
    broken = True

    async def store(calls: Sequence[CallInfo]) -> None:
        stored.extend(call.model for call in calls)

    async def tell(calls: Sequence[CallInfo]) -> None:
        for call in calls:
            if broken and call.model == "b":
                raise StorageUnavailable("away")
            told.append(call.model)

    meter = Meter(store, SystemClock())
    meter.told.append(tell)
    for model in "abc":
        meter.begin("chat", model=model, engine="e", caller="me", run_id=None).end(None)
    with pytest.raises(StorageUnavailable):
        await meter.flush()
    broken = False
    await meter.flush()
    assert (stored, told) == (["a", "b", "c"], ["a", "b", "c"])


async def test_whoever_shows_models_hears_of_calls_and_of_their_states(tmp_path: Any) -> None:
    async with house(tmp_path, lambda _: ["Hel", "lo"]) as it:
        seen: list[int] = []
        it.gateway.tell_changes(lambda: seen.append(it.gateway.busy("talker")))
        await it.gateway.complete(ask(), ME)
        assert 1 in seen, "one runs"
        assert seen[-1] == 0, "and has ended"

    state = StateDirectory(tmp_path / "state")
    state.prepare()
    local = Config(models={"tiny": LlamaCpp(path="/none/tiny.gguf", keep_alive="5m")})
    clock = SystemClock()
    gateway = Gateway(configured(local, state, clock), meter=it.meter, clock=clock)
    told: list[str] = []
    residence = residence_of("tiny", gateway.model("tiny").residence)
    gateway.tell_changes(lambda: told.append("ready" if residence.ready else "not"))
    residence.load()
    assert told, "it is to be loaded"
    report = Report(os.getpid(), "ready", generation=wishes.read(state)["tiny"].generation)
    place(state, "tiny").report.write_bytes(msgspec.json.encode(report))
    residence.look()
    assert told[-1] == "ready"
    await gateway.aclose()

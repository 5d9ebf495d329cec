"""What becomes of calls when engines fail: other replicas, fallbacks, breakers, waiting again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from llmagentos.core import metrics
from llmagentos.core.config.schema import OpenAI
from llmagentos.core.errors import InvalidInput
from llmagentos.llm import replicas, tries
from llmagentos.llm.engines.engine import EngineBusy, EngineFailed, EngineStalled, EngineUnreachable, QuotaExhausted
from llmagentos.llm.failures import BreakerOpen
from llmagentos.security.identity import Identity, Kind
from support.gate import Gate, Held, ask, gate
from support.scripted import Drop, Hang, Refuse, ScriptedEngine, Step, Wait, scripted_engine
from support.server import eventually

pytestmark = pytest.mark.anyio
ME = Identity(Kind.ADMIN, "me")
BUSY = Refuse(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, {"Retry-After": "0.05"})
EMPTY = Refuse(429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}})
BROKEN = Refuse(500, {"error": {"message": "boom"}})

Script = Callable[[dict[str, Any]], Refuse | Sequence[Step]]


class Turns:
    """Does in each call what its turn says; the last one for ever."""

    def __init__(self, *turns: Refuse | Sequence[Step]) -> None:
        self.turns = list(turns)

    def __call__(self, _: dict[str, Any]) -> Refuse | Sequence[Step]:
        return self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]


@asynccontextmanager
async def two(
    tmp_path: Any, script: Script, backup: Script = lambda _: ["backup"], **settings: Any
) -> AsyncIterator[tuple[Gate, ScriptedEngine, ScriptedEngine]]:
    """A model `m` with a fallback `b`."""
    async with (
        scripted_engine(script) as engine,
        scripted_engine(backup) as other,
        gate(
            tmp_path,
            {"m": OpenAI(url=engine.url, fallbacks=["b"], **settings), "b": OpenAI(url=other.url)},
        ) as it,
    ):
        yield it, engine, other


@asynccontextmanager
async def replicated(
    tmp_path: Any, *scripts: Script, **settings: Any
) -> AsyncIterator[tuple[Gate, list[ScriptedEngine]]]:
    """A model `m` with an engine for each script."""
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(scripted_engine(script)) for script in scripts]
        first, *others = [engine.url for engine in engines]
        models = {"m": OpenAI(url=first, urls=others, **settings)}
        yield await stack.enter_async_context(gate(tmp_path, models)), engines


# Fallbacks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [BROKEN, Refuse(503, "gone"), BUSY, EMPTY, [Drop()], [{"role": "assistant", "content": ""}, Drop()], [Hang()]],
)
async def test_a_fallback_takes_what_fails_before_any_text(tmp_path: Any, answer: Refuse | list[Step]) -> None:
    async with two(tmp_path, lambda _: answer, timeout_s=0.2) as (it, engine, _):
        found = await it.gateway.complete(ask(model="m"), ME)
        assert (found.text, found.model) == ("backup", "b")
        assert len(engine.requests) == 1
        assert [(call.model, call.status) for call in await it.ended()] == [("m", "failed"), ("b", "succeeded")]


async def test_nothing_takes_over_once_text_was_passed_on(tmp_path: Any) -> None:
    async with two(tmp_path, lambda _: ["Hel", Drop()]) as (it, _, other):
        with pytest.raises(EngineFailed, match="while it was generating"):
            await it.gateway.complete(ask(model="m"), ME)
        assert other.requests == []


async def test_what_the_caller_did_wrong_is_not_tried_elsewhere(tmp_path: Any) -> None:
    async with two(tmp_path, lambda _: Refuse(400, {"error": {"message": "bad seed"}})) as (it, _, other):
        with pytest.raises(InvalidInput, match="bad seed"):
            await it.gateway.complete(ask(model="m"), ME)
        assert other.requests == []


async def test_a_fallback_that_fails_too_ends_it(tmp_path: Any) -> None:
    def value() -> float:
        labels = {"model": "m", "fallback": "b", "failure": "error"}
        return metrics.REGISTRY.get_sample_value("llmagentos_llm_fallbacks_total", labels) or 0.0

    before = value()
    async with two(tmp_path, lambda _: BROKEN, lambda _: BROKEN) as (it, *_):
        with pytest.raises(EngineFailed, match="engine of 'b' answered HTTP 500"):
            await it.gateway.complete(ask(model="m"), ME)
    assert value() == before + 1


# Waiting again ------------------------------------------------------------------------------------


async def test_a_call_that_a_busy_engine_refused_waits_and_is_sent_again(tmp_path: Any) -> None:
    script = Turns(BUSY, ["ok"])
    async with replicated(tmp_path, script) as (it, (engine,)):
        assert (await it.gateway.complete(ask(model="m"), ME)).text == "ok"
        assert len(engine.requests) == 2
        assert [call.status for call in await it.ended()] == ["failed", "succeeded"]


async def test_a_busy_engine_is_not_asked_for_ever(tmp_path: Any) -> None:
    async with replicated(tmp_path, lambda _: BUSY) as (it, (engine,)):
        with pytest.raises(EngineBusy, match="slow down"):
            await it.gateway.complete(ask(model="m"), ME)
        assert len(engine.requests) == 1 + tries.REQUEUES


async def test_others_wait_as_long_as_the_endpoint_asked(tmp_path: Any) -> None:
    patience = Refuse(429, {"error": {"message": "slow down"}}, {"Retry-After": "300"})
    async with replicated(tmp_path, lambda _: patience) as (it, (engine,)):
        with pytest.raises(EngineBusy) as refused:
            await it.gateway.complete(ask(model="m"), ME, timeout=60)
        assert refused.value.retry_after == 300
        second = asyncio.create_task(it.gateway.complete(ask(model="m"), ME, run_id="r"))
        await eventually(lambda: it.waiting("m"))
        waiting = it.gateway.explain("r")
        assert waiting is not None
        assert waiting.reason == "backoff"
        assert len(engine.requests) == 1
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)


async def test_headers_that_say_nothing_is_left_hold_calls_back(tmp_path: Any) -> None:
    async with replicated(tmp_path, lambda _: ["ok"]) as (it, (engine,)):
        engine.extra = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "5m"}
        await it.gateway.complete(ask(model="m"), ME)
        second = asyncio.create_task(it.gateway.complete(ask(model="m"), ME))
        await eventually(lambda: it.waiting("m"))
        assert it.gateway.queues(most=1)[0].waiting[0].reason == "backoff"
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)


async def test_what_headers_say_is_left_counts_against_the_limit(tmp_path: Any) -> None:
    async with replicated(tmp_path, lambda _: ["ok"], requests_per_minute=30) as (it, (engine,)):
        engine.extra = {"x-ratelimit-remaining-requests": "0"}
        await it.gateway.complete(ask(model="m"), ME)
        second = asyncio.create_task(it.gateway.complete(ask(model="m"), ME))
        async with asyncio.timeout(40):
            while not it.waiting("m"):
                await asyncio.sleep(0)  # it does not wait for long
        assert it.gateway.queues(most=1)[0].waiting[0].reason == "rate"
        assert (await second).text == "ok"  # two seconds later, at 30 a minute


async def test_concurrency_adapts_to_refusals(tmp_path: Any) -> None:
    async with replicated(tmp_path, Turns(BUSY, ["ok"]), slots=16, adaptive=True) as (it, _):
        before = it.gateway.queues(most=0)[0].slots
        await it.gateway.complete(ask(model="m"), ME)
        assert (before, it.gateway.queues(most=0)[0].slots) == (4, 2)


# Breakers -----------------------------------------------------------------------------------------


async def test_a_used_up_quota_opens_the_breaker_at_once_and_waiting_calls_fail_fast(tmp_path: Any) -> None:
    held = Held()

    def script(request: dict[str, Any]) -> Refuse | Sequence[Step]:
        return EMPTY if request["messages"][0]["content"] == "last" else held(request)

    async with replicated(tmp_path, script, slots=2) as (it, (engine,)):
        running = asyncio.create_task(it.gateway.complete(ask("first", model="m"), ME))
        await held.begins(1)
        blocker = asyncio.create_task(it.gateway.complete(ask("second", model="m"), ME))
        await held.begins(2)
        last = asyncio.create_task(it.gateway.complete(ask("last", model="m"), ME, priority=-5))
        waiting = [asyncio.create_task(it.gateway.complete(ask(model="m"), ME)) for _ in range(5)]
        await eventually(lambda: it.waiting("m") == 6)
        await held.answer()
        ended = await asyncio.gather(last, *waiting, return_exceptions=True)
        assert [type(error) for error in ended] == [QuotaExhausted] * 6
        assert "no calls are sent to the model 'm' for 60 s" in str(ended[1])
        with pytest.raises(QuotaExhausted) as refused:
            await it.gateway.complete(ask(model="m"), ME)
        assert 50 < refused.value.retry_after <= 60
        assert len(engine.requests) == 3
        note = (await it.gateway.models())[0].note
        assert note is not None
        assert "You exceeded your current quota" in note
        await held.answer()  # what ran before goes on
        assert [(await task).text for task in (running, blocker)] == ["ok", "ok"]


async def test_waiting_calls_take_the_fallback_when_the_breaker_opens(tmp_path: Any) -> None:
    held = Held()

    def script(request: dict[str, Any]) -> Refuse | Sequence[Step]:
        return EMPTY if request["messages"][0]["content"] == "last" else held(request)

    async with two(tmp_path, script, slots=1) as (it, engine, other):
        first = asyncio.create_task(it.gateway.complete(ask(model="m"), ME))
        await held.begins(1)
        last = asyncio.create_task(it.gateway.complete(ask("last", model="m"), ME, priority=-5))
        waiting = [asyncio.create_task(it.gateway.complete(ask(model="m"), ME)) for _ in range(5)]
        await eventually(lambda: it.waiting("m") == 6)
        await held.answer()
        assert [(await task).model for task in (first, last, *waiting)] == ["m"] + ["b"] * 6
        assert (len(engine.requests), len(other.requests)) == (2, 6)


async def test_failures_open_the_breaker_and_a_good_call_closes_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replicas.BreakerSettings(least=3, first_pause_s=1.5)
    monkeypatch.setattr(replicas, "SETTINGS", settings)
    script = Turns(BROKEN, BROKEN, BROKEN, ["ok"])
    async with replicated(tmp_path, script, slots=1) as (it, (engine,)):
        for _ in range(3):
            with pytest.raises(EngineFailed):
                await it.gateway.complete(ask(model="m"), ME)
        with pytest.raises(BreakerOpen, match="HTTP 500: boom") as refused:
            await it.gateway.complete(ask(model="m"), ME)
        assert refused.value.hint is not None
        assert len(engine.requests) == 3
        name = engine.url.removeprefix("http://")
        labels = {"model": "m", "engine": name}
        assert metrics.REGISTRY.get_sample_value("llmagentos_llm_breaker_open", labels) == 1
        await eventually(lambda: metrics.REGISTRY.get_sample_value("llmagentos_llm_breaker_open", labels) == 0)
        for _ in range(2):
            assert (await it.gateway.complete(ask(model="m"), ME)).text == "ok"


@asynccontextmanager
async def recovering(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, *probes: Sequence[Step]
) -> AsyncIterator[tuple[Gate, ScriptedEngine]]:
    """A model `m` of two slots whose breaker is half-open; `probes` are what the engine does next, then it works."""
    monkeypatch.setattr(replicas, "SETTINGS", replicas.BreakerSettings(least=1, first_pause_s=0.05, longest_pause_s=60))
    async with replicated(tmp_path, Turns(BROKEN, *probes, ["ok"]), slots=2) as (it, (engine,)):
        with pytest.raises(EngineFailed):
            await it.gateway.complete(ask(model="m"), ME)
        labels = {"model": "m", "engine": engine.url.removeprefix("http://")}
        await eventually(lambda: metrics.REGISTRY.get_sample_value("llmagentos_llm_breaker_open", labels) == 0)
        yield it, engine


async def some(it: Gate, engine: ScriptedEngine) -> tuple[asyncio.Task[Any], list[asyncio.Task[Any]]]:
    """A call that tries the engine, and three that wait for what comes of it."""
    probe = asyncio.create_task(it.gateway.complete(ask(model="m"), ME))
    await eventually(lambda: len(engine.requests) == 2)
    others = [asyncio.create_task(it.gateway.complete(ask(model="m"), ME)) for _ in range(3)]
    await eventually(lambda: it.waiting("m") == 3)
    return probe, others


async def test_calls_wait_while_one_tries_an_engine_again_and_go_on_with_its_first_word(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins, ends = asyncio.Event(), asyncio.Event()
    async with recovering(tmp_path, monkeypatch, [Wait(begins), "first", Wait(ends), " last"]) as (it, engine):
        probe, others = await some(it, engine)
        begins.set()
        assert [(await task).text for task in others] == ["ok"] * 3
        assert not probe.done()
        ends.set()
        assert (await probe).text == "first last"


async def test_with_a_fallback_nobody_waits_for_a_try(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "SETTINGS", replicas.BreakerSettings(least=1, first_pause_s=0.05))
    goes_on = asyncio.Event()
    async with two(tmp_path, Turns(BROKEN, [Wait(goes_on), "ok"])) as (it, engine, _):
        assert (await it.gateway.complete(ask(model="m"), ME)).text == "backup"
        labels = {"model": "m", "engine": engine.url.removeprefix("http://")}
        await eventually(lambda: metrics.REGISTRY.get_sample_value("llmagentos_llm_breaker_open", labels) == 0)
        probe = asyncio.create_task(it.gateway.complete(ask(model="m"), ME))
        await eventually(lambda: len(engine.requests) == 2)
        assert (await it.gateway.complete(ask(model="m"), ME)).text == "backup"
        goes_on.set()
        assert (await probe).text == "ok"


async def test_calls_that_wait_for_a_try_fail_with_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begins = asyncio.Event()
    async with recovering(tmp_path, monkeypatch, [Wait(begins), Drop()]) as (it, engine):
        probe, others = await some(it, engine)
        begins.set()
        ended = await asyncio.gather(probe, *others, return_exceptions=True)
        assert [type(error) for error in ended[1:]] == [BreakerOpen] * 3
        assert len(engine.requests) == 2


async def test_a_try_that_is_given_up_is_made_by_the_next_call(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with recovering(tmp_path, monkeypatch, [Hang()]) as (it, engine):
        probe, others = await some(it, engine)
        probe.cancel()
        assert [(await task).text for task in others] == ["ok"] * 3
        await asyncio.gather(probe, return_exceptions=True)


# Replicas -----------------------------------------------------------------------------------------


async def test_another_replica_takes_what_one_fails_and_then_all(tmp_path: Any) -> None:
    async with replicated(tmp_path, lambda _: BROKEN, lambda _: ["ok"], slots=4) as (it, (bad, good)):
        for _ in range(20):
            assert (await it.gateway.complete(ask(model="m"), ME)).text == "ok"
        assert len(good.requests) == 20
        assert 5 <= len(bad.requests) <= 10  # until its breaker opened
        assert it.gateway.queues(most=0)[0].slots == 4


async def test_a_replica_that_is_gone_is_passed_over(tmp_path: Any) -> None:
    async with scripted_engine(lambda _: []) as gone:
        url = gone.url
    async with (
        scripted_engine(lambda _: ["ok"]) as engine,
        gate(tmp_path, {"m": OpenAI(url=url, urls=[engine.url])}) as it,
    ):
        for _ in range(3):
            assert (await it.gateway.complete(ask(model="m"), ME)).text == "ok"
        info = (await it.gateway.models())[0]
        assert (info.state, info.slots) == ("ready", 32)
        assert "unreachable" in (info.note or "") or "cannot connect" in (info.note or "")
    async with gate(tmp_path, {"m": OpenAI(url=url)}) as it:
        with pytest.raises(EngineUnreachable):
            await it.gateway.complete(ask(model="m"), ME)


async def test_short_prompts_go_where_there_is_room_and_long_ones_where_they_were(tmp_path: Any) -> None:
    one, other = Held(), Held()
    async with replicated(tmp_path, one, other, slots=2) as (it, _):
        tasks = [asyncio.create_task(it.gateway.complete(ask(f"short{n}", model="m"), ME)) for n in range(4)]
        await eventually(lambda: (len(one.begun), len(other.begun)) == (2, 2))
        for held in (one, one, other, other):
            await held.answer()
        await asyncio.gather(*tasks)
        long = "word " * 4000
        for number in range(4):
            task = asyncio.create_task(it.gateway.complete(ask(long, model="m", prompt_cache_key="k"), ME))
            home = one if number == 0 or len(one.begun) > 2 else other
            await eventually(lambda: len(one.begun) + len(other.begun) > 4)
            home = one if len(one.begun) > 2 else other
            await home.answer()
            await task
        assert sorted((len(one.begun), len(other.begun))) == [2, 6]


async def test_a_stalled_call_goes_to_another_replica(tmp_path: Any) -> None:
    async with replicated(tmp_path, lambda _: [Hang()], lambda _: [Hang()], timeout_s=0.5) as (it, engines):
        with pytest.raises(EngineStalled):
            await it.gateway.complete(ask(model="m"), ME)
        assert [len(engine.requests) for engine in engines] == [1, 1]

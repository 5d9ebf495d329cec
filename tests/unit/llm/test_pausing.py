"""A paused run produces nothing: engines stop at once, and what they were writing goes on when it is resumed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llmagentos.api.llm import EmbeddingRequest
from llmagentos.core.config.schema import OpenAI
from llmagentos.core.errors import DeadlineExceeded
from llmagentos.llm.metering import CallCancelled
from llmagentos.llm.parting import AnswerChanged
from llmagentos.security.identity import Identity, Kind
from support.gate import Gate, ask, gate
from support.scripted import Hang, ScriptedEngine, Step, Wait, scripted_engine
from support.server import eventually

pytestmark = pytest.mark.anyio
ME = Identity(Kind.ADMIN, "me")
WORDS = [f"{number} " for number in range(8)]
WHOLE = "".join(WORDS)
RUN = "r1"


class Story:
    """Tells `WORDS` from where the assistant's message ends; stands still after `stop` of them the first `times`."""

    def __init__(self, stop: int = 3, times: int = 1) -> None:
        self.stop = stop
        self.times = times
        self.begun: list[str] = []
        self.words = WORDS

    def __call__(self, request: dict[str, Any]) -> Sequence[Step]:
        last = request["messages"][-1]
        begun = last["content"] if last["role"] == "assistant" else ""
        self.begun.append(begun)
        left = self.words[len(begun.split()) :]
        return left if len(self.begun) > self.times else [*left[: self.stop], Hang()]


@asynccontextmanager
async def telling(
    tmp_path: Any, story: Story, *, slots: int = 1, preemptive: bool = True
) -> AsyncIterator[tuple[Gate, ScriptedEngine]]:
    async with scripted_engine(story) as engine:
        models = {"m": OpenAI(url=engine.url, slots=slots, preemptive=preemptive)}
        async with gate(tmp_path, models) as it:
            yield it, engine


class Listener:
    """One caller and what it has heard."""

    def __init__(self, it: Gate, *, timeout: float = 60, **more: Any) -> None:
        self.heard = ""
        self.ids: set[str] = set()
        self.usage: Any = None
        self._chunks = it.gateway.chat(ask("tell", **more), ME, run_id=RUN, timeout=timeout)
        self.task = asyncio.create_task(self._listen())

    async def _listen(self) -> str:
        async for chunk in self._chunks:
            self.ids.add(chunk.id)
            self.heard += chunk.text
            self.usage = chunk.usage
        return self.heard


async def heard(listener: Listener, words: int) -> None:
    await eventually(lambda: len(listener.heard.split()) >= words)


async def stopped(it: Gate, engine: ScriptedEngine) -> None:
    """The engine has nobody to write for, and its slot is free."""
    await eventually(lambda: engine.hung_up == 1 and engine.active == 0)
    await eventually(lambda: it.gateway.queues(most=0)[0].running_count == 0)


async def test_the_engine_stops_and_the_stream_goes_on_where_it_was(tmp_path: Any) -> None:
    async with telling(tmp_path, story := Story()) as (it, engine):
        listener = Listener(it)
        await heard(listener, 3)
        it.gateway.hold(RUN)
        await stopped(it, engine)
        found = it.gateway.explain(RUN)
        assert found is not None
        assert found.reason == "held"
        other = await it.gateway.complete(ask("other"), ME)  # the only slot is free
        assert other.choices[0].message.content == WHOLE
        assert listener.heard == "0 1 2 "
        it.gateway.release(RUN)
        assert await listener.task == WHOLE
        assert len(listener.ids) == 1
        assert story.begun == ["", "", "0 1 2 "]
        assert listener.usage.completion_tokens == len(WORDS)
        assert sorted(call.tokens_out for call in await it.ended()) == [8, 8]


async def test_before_the_first_word_too(tmp_path: Any) -> None:
    async with telling(tmp_path, story := Story(stop=0)) as (it, engine):
        listener = Listener(it)
        await eventually(lambda: engine.active)
        it.gateway.hold(RUN)
        await stopped(it, engine)
        it.gateway.release(RUN)
        assert await listener.task == WHOLE
        assert story.begun == ["", ""]
        assert [call.status for call in await it.ended()] == ["succeeded"]


async def test_again_and_again(tmp_path: Any) -> None:
    async with telling(tmp_path, story := Story(stop=1, times=5)) as (it, engine):
        listener = Listener(it)
        for words in range(1, 6):
            await heard(listener, words)
            it.gateway.hold(RUN)
            await eventually(lambda: engine.active == 0)
            it.gateway.release(RUN)
        assert await listener.task == WHOLE
        assert story.begun == ["".join(WORDS[:n]) for n in range(6)]


@pytest.mark.parametrize("streams", [True, False])
async def test_what_cannot_go_on_is_cut_off_paid_and_made_anew(tmp_path: Any, streams: bool) -> None:
    """Of a stream only what the caller has not heard yet is passed on."""
    async with telling(tmp_path, story := Story(), preemptive=False) as (it, engine):
        listener = Listener(it) if streams else None
        task = listener.task if listener else asyncio.create_task(it.gateway.complete(ask("tell"), ME, run_id=RUN))
        await eventually(lambda: engine.active)
        if listener:
            await heard(listener, 3)
        it.gateway.hold(RUN)
        await stopped(it, engine)
        (cut,) = await it.ended()
        assert (cut.status, cut.run_id, cut.tokens_in > 0) == ("cut_off", RUN, True)
        it.gateway.release(RUN)
        answer: Any = await task
        assert (answer if streams else answer.choices[0].message.content) == WHOLE
        assert story.begun == ["", ""]
        assert [call.status for call in await it.ended()] == ["cut_off", "succeeded"]
        if listener:
            assert cut.tokens_out == 3
            assert len(listener.ids) == 1


async def test_one_that_comes_out_otherwise_is_an_error_and_no_mixture(tmp_path: Any) -> None:
    async with telling(tmp_path, story := Story(), preemptive=False) as (it, engine):
        listener = Listener(it)
        await heard(listener, 3)
        it.gateway.hold(RUN)
        await stopped(it, engine)
        story.words = ["0 ", "never"]
        it.gateway.release(RUN)
        with pytest.raises(AnswerChanged):
            await listener.task
        assert listener.heard == "0 1 2 "


async def test_calls_of_tools_are_told_once(tmp_path: Any) -> None:
    def call(number: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, **more, "function": {"arguments": arguments}}]}

    steps: list[list[Step]] = [
        [call(0, '{"a"', id="x1"), call(0, ": ["), Hang()],
        [call(0, '{"a": [1', id="x2"), call(0, "]}")],
    ]
    async with scripted_engine(lambda _: steps.pop(0)) as engine, gate(tmp_path, {"m": OpenAI(url=engine.url)}) as it:
        tools = [{"type": "function", "function": {"name": "f"}}]
        heard: list[Any] = []

        async def listen() -> None:
            async for chunk in it.gateway.chat(ask("x", tools=tools), ME, run_id=RUN):
                heard.extend(call for choice in chunk.choices for call in choice.delta.tool_calls or [])

        task = asyncio.create_task(listen())
        await eventually(lambda: len(heard) == 2)
        it.gateway.hold(RUN)
        await eventually(lambda: engine.active == 0)
        it.gateway.release(RUN)
        await task
        assert "".join(call["function"]["arguments"] for call in heard) == '{"a": [1]}'
        assert [call.get("id") for call in heard if call.get("id")] == ["x1"]


async def test_who_makes_the_call_again_gets_the_beginning_and_the_rest(tmp_path: Any) -> None:
    """The run's host is not kept busy while it is paused: another one asks the same again."""
    async with telling(tmp_path, story := Story()) as (it, engine):
        listener = Listener(it)
        await heard(listener, 3)
        it.gateway.hold(RUN)
        assert it.gateway.put_down(RUN) == 1
        with pytest.raises(CallCancelled):
            await listener.task
        await stopped(it, engine)
        it.gateway.release(RUN)
        again = Listener(it)
        assert await again.task == WHOLE
        assert story.begun == ["", "0 1 2 "]
        assert again.usage.completion_tokens == len(WORDS)
        first, second = await it.ended()
        assert (first.status, first.tokens_out, second.status) == ("cut_off", 3, "succeeded")
        assert first.tokens_out + second.tokens_out == len(WORDS)
        assert first.tokens_in + second.tokens_in == again.usage.prompt_tokens
        assert await Listener(it).task == WHOLE  # asked once more it is another answer
        assert story.begun[-1] == ""


async def test_a_call_that_was_on_its_way_when_its_run_ended_does_not_start(tmp_path: Any) -> None:
    async with telling(tmp_path, story := Story(times=0)) as (it, _):
        it.gateway.forget(RUN)
        with pytest.raises(CallCancelled, match="has ended"):
            await Listener(it).task
        assert story.begun == []
        assert await it.ended() == []


async def test_what_no_engine_was_asked_costs_nothing(tmp_path: Any) -> None:
    """The pause comes when the call has just got its slot."""
    async with telling(tmp_path, story := Story(times=0), preemptive=False) as (it, _):
        it.gateway.hold(RUN)
        listener = Listener(it)
        await eventually(lambda: it.waiting("m") == 1)
        it.gateway.release(RUN)
        it.gateway.hold(RUN)
        await eventually(lambda: it.waiting("m") == 1)
        assert story.begun == []
        it.gateway.release(RUN)
        assert await listener.task == WHOLE
        assert [(call.status, call.tokens_out) for call in await it.ended()] == [("succeeded", 8)]
        assert story.begun == [""]


async def test_kill_forgets_the_beginning(tmp_path: Any) -> None:
    async with telling(tmp_path, story := Story()) as (it, engine):
        listener = Listener(it)
        await heard(listener, 3)
        it.gateway.hold(RUN)
        await stopped(it, engine)
        assert it.gateway.cancel_run(RUN) == 1
        with pytest.raises(CallCancelled):
            await listener.task
        assert [call.status for call in await it.ended()] == ["cancelled"]
        it.gateway.release(RUN)
        assert await Listener(it).task == WHOLE
        assert story.begun[-1] == ""


async def test_the_deadline_of_a_paused_stream_still_runs(tmp_path: Any) -> None:
    async with telling(tmp_path, Story()) as (it, engine):
        listener = Listener(it, timeout=4.0)
        await heard(listener, 3)
        it.gateway.hold(RUN)
        await stopped(it, engine)
        with pytest.raises(DeadlineExceeded):
            await listener.task


async def test_an_embedding_waits_and_one_under_way_is_paid_and_made_again(tmp_path: Any) -> None:
    steps: list[list[Step]] = [[Wait(go := asyncio.Event())], []]
    async with scripted_engine(lambda _: steps.pop(0)) as engine:
        models = {"e": OpenAI(url=engine.url, kind="embedding")}
        async with gate(tmp_path, models) as it:
            it.gateway.hold(RUN)
            task = asyncio.create_task(it.gateway.embed(EmbeddingRequest(["x"], "e"), ME, run_id=RUN))
            await eventually(lambda: it.waiting("e") == 1)
            it.gateway.release(RUN)
            await eventually(lambda: len(engine.requests) == 1)
            it.gateway.hold(RUN)
            await eventually(lambda: it.waiting("e") == 1)
            it.gateway.release(RUN)
            assert len((await task).data) == 1
            go.set()
            cut, made = await it.ended()
            assert (cut.status, cut.tokens_in > 0, made.status) == ("cut_off", True, "succeeded")


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("preemptive", [True, False])
async def test_never_both_paused_and_producing(tmp_path: Any, seed: int, preemptive: bool) -> None:
    """Pauses at random moments: nothing is heard meanwhile, no engine writes for the run, the answers are whole."""
    chance = random.Random(seed)

    class Slow(Story):
        def __call__(self, request: dict[str, Any]) -> Sequence[Step]:
            steps = list(super().__call__(request))
            return [*steps[: chance.randrange(len(steps) + 1)], Hang()] if chance.random() < 0.6 else steps

    async with telling(tmp_path, Slow(times=0), slots=2, preemptive=preemptive) as (it, engine):
        listeners = [Listener(it) for _ in range(4)]
        for _ in range(200):
            for _ in range(chance.randrange(30)):
                await asyncio.sleep(0)
            it.gateway.hold(RUN)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            before = [listener.heard for listener in listeners]
            for _ in range(chance.randrange(30)):
                await asyncio.sleep(0)
            await eventually(lambda: engine.active == 0)
            assert [listener.heard for listener in listeners] == before
            it.gateway.release(RUN)
            if all(listener.task.done() for listener in listeners):
                break
        assert [await listener.task for listener in listeners] == [WHOLE] * 4
        assert (await it.gateway.models())[0].running == 0

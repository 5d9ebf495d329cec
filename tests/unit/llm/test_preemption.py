"""Running answers give way to more urgent calls: slots, streams, what is metered, and every way to end meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llmagentos.core.config.schema import OpenAI
from llmagentos.core.errors import DeadlineExceeded
from llmagentos.llm.metering import CallCancelled
from llmagentos.security.identity import Identity, Kind
from support.gate import Gate, ask, gate
from support.scripted import Step, Wait, scripted_engine
from support.server import eventually

pytestmark = pytest.mark.anyio
ME = Identity(Kind.ADMIN, "me")
WORDS = [f"{number} " for number in range(8)]


class Story:
    """Tells `WORDS` from where the assistant's message ends. "slow" ones wait for `go` after the first word."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, str]] = []
        self.go: dict[str, asyncio.Event] = {}

    def __call__(self, request: dict[str, Any]) -> Sequence[Step]:
        first, last = request["messages"][0]["content"], request["messages"][-1]
        begun = last["content"] if last["role"] == "assistant" else ""
        self.parts.append((first, begun))
        words = WORDS[len(begun.split()) :][: request.get("max_tokens", 99)]
        if "slow" not in first or begun:
            return words
        event = self.go[first] = asyncio.Event()
        return [words[0], Wait(event), *words[1:]] if words else []


@asynccontextmanager
async def telling(tmp_path: Any, *, slots: int = 1, preemptive: bool = True) -> AsyncIterator[tuple[Gate, Story]]:
    story = Story()
    async with scripted_engine(story) as engine:
        models = {"m": OpenAI(url=engine.url, slots=slots, preemptive=preemptive)}
        async with gate(tmp_path, models) as it:
            yield it, story


class Listener:
    """One caller and what it has heard."""

    def __init__(self, it: Gate, text: str, priority: int, **more: Any) -> None:
        self.heard: list[str] = []
        given = {name: more.pop(name) for name in ("run_id", "timeout") if name in more}
        self._chunks = it.gateway.chat(ask(text, **more), ME, priority=priority, **given)
        self.task = asyncio.create_task(self._listen())
        self.usage: Any = None

    async def _listen(self) -> str:
        ids = set()
        async for chunk in self._chunks:
            ids.add(chunk.id)
            self.heard.append(chunk.text)
            self.usage = chunk.usage
        assert len(ids) == 1
        return "".join(self.heard)


async def begun(listener: Listener) -> None:
    await eventually(lambda: listener.heard or listener.task.done())


async def wanted(it: Gate, waiting: int = 1) -> None:
    await eventually(lambda: it.waiting("m") == waiting)


async def test_a_more_urgent_call_gets_the_slot_and_the_answer_goes_on(tmp_path: Any) -> None:
    async with telling(tmp_path) as (it, story):
        slow = Listener(it, "slow", 15, max_tokens=6)
        await begun(slow)
        urgent = Listener(it, "urgent", -15, max_tokens=2)
        await wanted(it)
        story.go["slow"].set()  # its next piece is where it stops
        assert await urgent.task == "0 1 "
        assert await slow.task == "0 1 2 3 4 5 "
        assert story.parts == [("slow", ""), ("urgent", ""), ("slow", "0 1 ")]
        assert (slow.usage.completion_tokens, slow.usage.total_tokens) == (2 + 4, slow.usage.prompt_tokens + 6)
        calls = {call.tokens_out: call for call in await it.ended()}
        assert set(calls) == {2, 6}
        assert calls[6].duration_s > calls[6].queue_s > 0
        assert (await it.gateway.models())[0].running == 0


async def test_what_waits_says_that_it_was_preempted(tmp_path: Any) -> None:
    async with telling(tmp_path) as (it, story):
        slow = Listener(it, "slow batch", 15, run_id="r1")
        await begun(slow)
        urgent = Listener(it, "slow urgent", -15)
        await wanted(it)
        story.go["slow batch"].set()
        await begun(urgent)
        found = it.gateway.explain("r1")
        assert found is not None
        assert (found.reason, found.position) == ("preempted", 1)
        story.go["slow urgent"].set()
        await urgent.task
        assert await slow.task == "".join(WORDS)


async def test_the_same_or_a_lower_priority_waits(tmp_path: Any) -> None:
    async with telling(tmp_path) as (it, story):
        slow = Listener(it, "slow", 0)
        await begun(slow)
        others = [Listener(it, "equal", 0), Listener(it, "lower", 15)]
        await wanted(it, 2)
        story.go["slow"].set()
        assert await slow.task == "".join(WORDS)
        assert await asyncio.gather(*(other.task for other in others)) == ["".join(WORDS)] * 2
        assert [first for first, _ in story.parts] == ["slow", "equal", "lower"]


@pytest.mark.parametrize(
    ("preemptive", "more"),
    [
        (False, {}),
        (True, {"seed": 3, "temperature": 1.0}),
        (True, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (True, {"response_format": {"type": "json_object"}}),
    ],
)
async def test_what_cannot_go_on_is_left_alone(tmp_path: Any, preemptive: bool, more: dict[str, Any]) -> None:
    async with telling(tmp_path, preemptive=preemptive) as (it, story):
        slow = Listener(it, "slow", 15, **more)
        await begun(slow)
        urgent = Listener(it, "urgent", -15)
        await wanted(it)
        story.go["slow"].set()
        assert await slow.task == "".join(WORDS)
        await urgent.task
        assert [first for first, _ in story.parts] == ["slow", "urgent"]


async def test_one_that_can_gives_way_beside_one_that_cannot(tmp_path: Any) -> None:
    async with telling(tmp_path, slots=2) as (it, story):
        fixed = Listener(it, "slow fixed", 19, seed=1)
        can = Listener(it, "slow", 15)
        await begun(fixed)
        await begun(can)
        urgent = Listener(it, "urgent", 0)
        await wanted(it)
        story.go["slow"].set()
        await urgent.task
        assert not fixed.task.done()
        story.go["slow fixed"].set()
        assert await asyncio.gather(fixed.task, can.task) == ["".join(WORDS)] * 2


async def test_who_is_urgent_no_more_interrupts_nobody(tmp_path: Any) -> None:
    async with telling(tmp_path) as (it, story):
        slow = Listener(it, "slow", 15)
        await begun(slow)
        urgent = Listener(it, "urgent", -15)
        await wanted(it)
        urgent.task.cancel()
        await asyncio.gather(urgent.task, return_exceptions=True)
        await wanted(it, 0)
        story.go["slow"].set()
        assert await slow.task == "".join(WORDS)
        assert story.parts == [("slow", "")]


async def suspended(it: Gate, story: Story, **more: Any) -> tuple[Listener, Listener]:
    """A call that was interrupted, and the one that has its slot."""
    slow = Listener(it, "slow batch", 15, run_id="r1", **more)
    await begun(slow)
    urgent = Listener(it, "slow urgent", -15)
    await wanted(it)
    story.go["slow batch"].set()
    await begun(urgent)
    return slow, urgent


@pytest.mark.parametrize("end", ["kill", "hang up", "deadline"])
async def test_it_can_end_while_it_is_suspended(tmp_path: Any, end: str) -> None:
    async with telling(tmp_path) as (it, story):
        slow, urgent = await suspended(it, story, timeout=4.0 if end == "deadline" else 60)
        errors: dict[str, type[BaseException]] = {"kill": CallCancelled, "deadline": DeadlineExceeded}
        if end == "kill":
            assert it.gateway.cancel_run("r1") == 1
        if end == "hang up":
            slow.task.cancel()
        with pytest.raises(errors.get(end, asyncio.CancelledError)):
            await slow.task
        assert it.waiting("m") == 0
        story.go["slow urgent"].set()
        assert await urgent.task == "".join(WORDS)
        assert (await it.gateway.models())[0].running == 0
        ended = {call.run_id: call for call in await it.ended()}
        assert ended["r1"].tokens_out == 2


async def test_a_pause_holds_it_while_it_is_suspended(tmp_path: Any) -> None:
    async with telling(tmp_path) as (it, story):
        slow, urgent = await suspended(it, story)
        it.gateway.hold("r1")
        story.go["slow urgent"].set()
        await urgent.task
        assert not slow.task.done()  # its run is paused: it waits on
        found = it.gateway.explain("r1")
        assert found is not None
        assert found.reason == "held"
        it.gateway.release("r1")
        assert await slow.task == "".join(WORDS)


async def test_many_of_both_kinds_all_end_with_their_whole_answer(tmp_path: Any) -> None:
    async with telling(tmp_path, slots=2) as (it, _):
        batch = [Listener(it, f"batch {n}", 15) for n in range(6)]
        kinds: list[Callable[[], Listener]] = [
            lambda: Listener(it, "now", -15),
            lambda: Listener(it, "soon", 0),
        ]
        urgent = []
        for turn in range(12):
            await asyncio.sleep(0)
            urgent.append(kinds[turn % 2]())
        answers = await asyncio.gather(*(listener.task for listener in [*batch, *urgent]))
        assert answers == ["".join(WORDS)] * 18
        assert sorted(call.tokens_out for call in await it.ended()) == [8] * 18
        assert (await it.gateway.models())[0].running == 0

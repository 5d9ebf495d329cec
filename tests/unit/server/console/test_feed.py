"""An open page hears of every change, at a bearable rate, and its stream ends when the server stops."""

from __future__ import annotations

import asyncio
from typing import Any

from llmagentos.core.events import Hub
from llmagentos.server.console.feed import CHANGE, END, Text, changes
from llmagentos.server.sse import Event


def told(item: Any) -> Text | None:
    return Text("", -item) if isinstance(item, int) and item < -1 else Text(item) if isinstance(item, str) else None


async def follow(hub: Hub, got: list[Event], *, draft: Text | None = None, pace: float = 0.02) -> None:
    async for event in changes(
        hub, ["runs"], now=lambda: draft, told=told, done=lambda item: bool(item == -1), pace=pace
    ):
        got.append(event)  # noqa: PERF401 (the test looks while it grows)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


def text(call: int, piece: str) -> Event:
    return Event("text", {"text": piece, "call": call})


def shown(got: list[Event]) -> tuple[int, str]:
    """What a page shows after these events: of which answer, and how much."""
    call, whole = 0, ""
    for event in got:
        if event.event == "text":
            call, whole = (event.data["call"], "") if event.data["call"] else (call, whole)
            whole += event.data["text"]
    return call, whole


def test_a_page_is_told_at_once_and_then_of_bursts_as_one() -> None:
    async def main() -> None:
        hub, got = Hub(), list[Event]()
        task = asyncio.create_task(follow(hub, got))
        await until(lambda: len(got) == 1)
        for number in range(500):
            hub.publish("runs", number)
        await until(lambda: len(got) == 2)
        await asyncio.sleep(0.06)
        assert got == [CHANGE, CHANGE]
        hub.close()
        async with asyncio.timeout(40):
            await task

    asyncio.run(main())


def test_a_change_within_the_pace_is_told_when_it_is_over() -> None:
    async def main() -> None:
        hub, got = Hub(), list[Event]()
        task = asyncio.create_task(follow(hub, got, pace=0.05))
        await until(lambda: len(got) == 1)
        hub.publish("runs", 1)
        await until(lambda: len(got) == 2)
        hub.close()
        await task

    asyncio.run(main())


def test_text_goes_on_from_what_there_was_and_is_no_change() -> None:
    async def main() -> None:
        hub, got = Hub(), list[Event]()
        task = asyncio.create_task(follow(hub, got, draft=Text("once ", 7)))
        await until(lambda: CHANGE in got)
        hub.publish("runs", "<script>")
        hub.publish("runs", "a\nb")
        await until(lambda: shown(got)[1].endswith("b"))
        hub.close()
        await task
        assert got[0] == text(7, "once ")
        assert shown(got) == (7, "once <script>a\nb")
        assert got.count(CHANGE) == 1

    asyncio.run(main())


def test_another_answer_begins_anew_and_that_is_a_change() -> None:
    async def main() -> None:
        hub, got = Hub(), list[Event]()
        task = asyncio.create_task(follow(hub, got, draft=Text("once ", 7)))
        await until(lambda: CHANGE in got)
        for item in ("upon", -9, "twice", " upon"):
            hub.publish("runs", item)
        await until(lambda: got.count(CHANGE) == 2)
        hub.close()
        await task
        assert got == [text(7, "once "), CHANGE, text(0, "upon"), text(9, "twice upon"), CHANGE]

    asyncio.run(main())


def test_the_end_is_told_after_the_last_change() -> None:
    async def main() -> None:
        hub, got = Hub(), list[Event]()
        task = asyncio.create_task(follow(hub, got, pace=120))
        await until(lambda: len(got) == 1)
        hub.publish("runs", "the last words")
        hub.publish("runs", -1)
        async with asyncio.timeout(40):
            await task
        assert got == [CHANGE, text(0, "the last words"), CHANGE, END]

    asyncio.run(main())


def test_a_lagging_page_is_told_to_read_anew_and_the_whole_text() -> None:
    async def main() -> None:
        hub, got = Hub(limit=5), list[Event]()
        task = asyncio.create_task(follow(hub, got, draft=Text("all of it", 7)))
        await until(lambda: CHANGE in got)
        for _ in range(20):
            hub.publish("runs", "x")
        await until(lambda: got.count(CHANGE) == 2)
        hub.publish("runs", ", and more")
        await until(lambda: got[-1].event == "text")
        for item in [*"0123456789", -1]:
            hub.publish("runs", item)
        async with asyncio.timeout(40):
            await task
        assert got[:2] == [text(7, "all of it"), CHANGE]
        assert got[2:] == [text(7, "all of it"), CHANGE, text(0, ", and more"), CHANGE, END]

    asyncio.run(main())

"""An open page hears of every change, at a bearable rate, and its stream ends when the server stops."""

from __future__ import annotations

import asyncio
from typing import Any

from llmagentos.core.events import Hub
from llmagentos.server.console.feed import CHANGE, END, Fragment, changes
from llmagentos.server.sse import Event


def text(item: Any) -> str | None:
    return item if isinstance(item, str) else None


async def follow(hub: Hub, got: list[Event], *, pace: float = 0.02) -> None:
    async for event in changes(hub, ["runs"], text=text, done=lambda item: item == -1, pace=pace):
        got.append(event)  # noqa: PERF401 (the test looks while it grows)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


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


def test_text_is_passed_on_escaped_and_is_no_change() -> None:
    async def main() -> None:
        hub, got = Hub(), list[Event]()
        task = asyncio.create_task(follow(hub, got))
        await until(lambda: len(got) == 1)
        hub.publish("runs", "<script>")
        hub.publish("runs", "a\nb")
        await until(lambda: "b" in "".join(event.data for event in got))
        hub.close()
        await task
        assert "".join(event.data for event in got) == "&lt;script&gt;a\nb"
        assert got.count(CHANGE) == 1

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
        assert got == [CHANGE, Fragment("text", "the last words"), CHANGE, END]

    asyncio.run(main())


def test_a_lagging_page_is_told_to_read_anew() -> None:
    async def main() -> None:
        hub, got = Hub(limit=5), list[Event]()
        task = asyncio.create_task(follow(hub, got))
        await until(lambda: len(got) == 1)
        for _ in range(20):
            hub.publish("runs", "x")
        await until(lambda: got.count(CHANGE) == 2)
        hub.close()
        await task

    asyncio.run(main())


def test_lines_stay_lines_on_the_wire() -> None:
    assert Fragment("text", "a\nb").encode() == b"event: text\ndata: a\ndata: b\n\n"

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.client import ServerEvent, parse_events


def parse(text: str) -> list[ServerEvent]:
    async def lines() -> AsyncIterator[str]:
        for line in text.split("\n"):
            yield line

    async def main() -> list[ServerEvent]:
        return [event async for event in parse_events(lines())]

    return asyncio.run(main())


def test_events_comments_and_defaults() -> None:
    text = ": hello\n\nevent: up\nid: 7\ndata: 1\n\ndata: a\ndata:b\n\nevent: none\n\n: keep-alive\n\n"
    assert parse(text) == [ServerEvent("up", "1", "7"), ServerEvent("message", "a\nb", "7")]


def test_an_event_cut_off_by_the_end_is_not_delivered() -> None:
    assert parse("event: up\ndata: 1") == []


@given(st.text(max_size=200))
def test_any_text_parses(text: str) -> None:
    assert all(event.data for event in parse(text) if event.data)


names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0:"), min_size=1, max_size=10).filter(
    lambda name: not name.startswith(" ")
)


@given(st.lists(st.tuples(names, st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1))))
def test_what_is_written_is_read(events: list[tuple[str, str]]) -> None:
    text = "".join(f"event: {name}\ndata: {data}\n\n" for name, data in events)
    assert [(event.event, event.data) for event in parse(text)] == events

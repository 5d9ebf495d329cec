"""Reading events while they are written."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.jobs import MAX_EVENT_BYTES, JobEvent, LogLine
from llmagentos.fleet.node.tail import EventTail


def line(number: int, text: str = "x") -> bytes:
    return json.dumps({"type": "log", "seq": number, "at": 1.0, "text": text}, ensure_ascii=False).encode() + b"\n"


def drain(tail: EventTail) -> list[JobEvent]:
    found = []
    while batch := tail.read():
        found += batch
    return found


def test_nothing_yet(tmp_path: Path) -> None:
    assert EventTail(tmp_path / "events.jsonl", 1).read() == []


@given(st.integers(1, 30), st.integers(1, 32), st.lists(st.integers(1, 400), max_size=8))
def test_pieces_of_any_size(tmp_path_factory: pytest.TempPathFactory, number: int, first: int, cuts: list[int]) -> None:
    path = tmp_path_factory.mktemp("tail") / "events.jsonl"
    whole = b"".join(line(n) for n in range(1, number + 1))
    tail = EventTail(path, first)
    found: list[JobEvent] = []
    for cut in [*sorted(cuts), len(whole)]:
        path.write_bytes(whole[:cut])
        found += drain(tail)
    assert [event.seq for event in found] == list(range(first, number + 1))


def test_what_cannot_be_read_keeps_its_number(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + b'{"type":"log","seq":2,\xff}\n' + b'{"type":"new"}\n' + line(4))
    found = drain(EventTail(path, 1))
    assert [event.seq for event in found] == [1, 2, 3, 4]
    assert isinstance(found[1], LogLine)
    assert found[1].level == "warning"


def test_a_huge_event_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1, "é" * 200_000) + line(2))
    found = drain(EventTail(path, 1))
    assert [event.seq for event in found] == [1, 2]
    assert len(msgspec.json.encode(found[0])) <= MAX_EVENT_BYTES


def test_a_line_cut_off_by_the_runners_end_is_left(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + line(2)[:-5])
    assert [event.seq for event in drain(EventTail(path, 1))] == [1]

"""Spans of time as people write them."""

from __future__ import annotations

import pytest

from llmagentos.core import timespan


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("1.5h", 5400), ("2w", 1_209_600), ("366d", 31_622_400)]
)
def test_a_span_is_read(text: str, value: float) -> None:
    assert timespan.seconds(text) == value


@pytest.mark.parametrize("text", ["", "0s", "-1m", "1 h", "1y", "h", "１h", "1e3", "99999999999w"])
def test_what_is_none_is_none(text: str) -> None:
    assert timespan.seconds(text) is None


@pytest.mark.parametrize("text", ["10s", "15m", "6h", "6d", "2w", "90m", "10.5s"])
def test_a_span_is_written_as_it_is_read(text: str) -> None:
    value = timespan.seconds(text)
    assert value is not None
    assert timespan.seconds(timespan.written(value)) == value
    assert timespan.written(value) == text

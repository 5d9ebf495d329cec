"""Headers and errors by which endpoints tell their limits."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.llm.engines.ratelimits import left, nothing_left, retry_after

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "99999999"}, 3600.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_when_to_ask_again(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


def test_what_is_left() -> None:
    headers = {"x-ratelimit-remaining-requests": "59", "x-ratelimit-remaining-tokens": "149984"}
    assert left(headers) == {"requests": 59, "tokens": 149984}
    assert left({"x-ratelimit-remaining-requests": "many"}) == {}
    assert left({"x-ratelimit-reset-requests": "1s"}) == {}


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3600), ("90", 90), ("1.5s", 1.5)]
)
def test_until_there_is_more(text: str, seconds: float) -> None:
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": text}
    assert left(headers) == {"tokens": 0, "wait": pytest.approx(seconds)}


@given(st.text(max_size=30))
def test_nonsense_is_not_believed(text: str) -> None:
    headers = dict.fromkeys(("retry-after", "retry-after-ms", "x-ratelimit-reset-tokens"), text)
    found = retry_after(headers, NOW)
    assert found is None or 0 <= found <= 3600
    assert left(headers | {"x-ratelimit-remaining-tokens": "0"}).get("wait", 0.0) <= 3600


@pytest.mark.parametrize(
    ("status", "error", "final"),
    [
        (402, "pay", True),
        (429, {"code": "insufficient_quota"}, True),
        (403, {"type": "insufficient_quota"}, True),
        (429, {"type": "exceeded_current_quota_error", "code": None}, True),
        (400, {"code": "Arrearage"}, True),
        (429, {"code": "rate_limit_exceeded"}, False),
        (429, "slow down", False),
        (500, {"code": "insufficient_quota"}, False),
    ],
)
def test_final_refusals(status: int, error: Any, final: bool) -> None:
    assert nothing_left(status, error) is final

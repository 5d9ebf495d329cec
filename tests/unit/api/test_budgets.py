"""Limits as people write them, paths, and refusals across the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api import problem
from llmagentos.api.budgets import MONEY, Limit, parse_limit, segments
from llmagentos.cli.budget import amount, bar
from llmagentos.core.errors import InvalidInput
from llmagentos.kernel import limits
from llmagentos.kernel.limits import BudgetExceeded, Refusal


@pytest.mark.parametrize(
    ("resource", "text", "wanted"),
    [
        ("tokens", "100k/day", Limit("tokens", 100_000, "day")),
        ("tokens", "1.5M per month", Limit("tokens", 1_500_000, "month")),
        ("tokens", "80k/day soft", Limit("tokens", 80_000, "day", hard=False)),
        ("money", "5.50/month", Limit("money", 5_500_000_000, "month")),
        ("money", "0.000000001", Limit("money", 1)),
        ("money", "2k", Limit("money", 2000 * MONEY)),
        ("seconds", "2h/day", Limit("seconds", 7200, "day")),
        ("seconds", "90", Limit("seconds", 90)),
        ("calls", "0/hour", Limit("calls", 0, "hour")),
        ("runs", "5", Limit("runs", 5)),
    ],
)
def test_limits_as_people_write_them(resource: Any, text: str, wanted: Limit) -> None:
    assert parse_limit(resource, text) == wanted


@pytest.mark.parametrize(
    ("resource", "text"),
    [
        ("tokens", ""),
        ("tokens", "-5"),
        ("tokens", "many"),
        ("tokens", "2h"),
        ("tokens", "1.5"),
        ("tokens", "5/week"),
        ("tokens", "9999999G"),
        ("money", "5m"),
        ("money", "0.0000000001"),
        ("seconds", "5k"),
        ("runs", "5/day"),
    ],
)
def test_what_is_no_limit_says_what_would_be(resource: Any, text: str) -> None:
    with pytest.raises(InvalidInput, match=resource) as refused:
        parse_limit(resource, text)
    assert refused.value.hint or "whole number" in refused.value.message


@given(st.text(max_size=30))
def test_any_text_is_a_limit_or_refused(text: str) -> None:
    for resource in limits.RESOURCES:
        try:
            limit = parse_limit(resource, text)
        except InvalidInput:
            continue
        assert limit.amount >= 0


def test_paths() -> None:
    assert segments("org/red/helper") == ("org", "red", "helper")
    assert segments("org/default/admin:me@x") == ("org", "default", "admin:me@x")
    for wrong in ("", "/", "org/", "/org", "org//a", "org/../x", "org/a b", "a/" * 9 + "a", "org\n", "x" * 101):
        with pytest.raises(InvalidInput, match="no path of a budget"):
            segments(wrong)


def test_a_refusal_keeps_its_facts_across_the_wire() -> None:
    refusal = Refusal(("org", "red"), limits.Limit("tokens", 100, "day"), 90, 5, 20, 3600.0)
    sent = BudgetExceeded.of(refusal, budget="org/red", on_limit="refuse")
    got = problem.decode(429, problem.encode(sent))
    assert isinstance(got, BudgetExceeded)
    assert (got.message, got.hint, got.retry_after) == (sent.message, sent.hint, 3600.0)
    assert got.details["budget"] == "org/red"


def test_bars_and_amounts_for_people() -> None:
    assert bar(0, 0, 100) == "[....................]"
    assert bar(50, 1, 100) == "[##########+.........]"
    assert bar(150, 20, 100) == "[####################]"
    assert bar(1, 0, 0) == "[####################]"
    assert amount("money", 5_500_000_000, "EUR") == "5.50 EUR"
    assert amount("money", 1_234, "EUR") == "0.000001234 EUR"
    assert amount("tokens", 1_234_567, "EUR") == "1,234,567"
    assert amount("seconds", 7200, "EUR") == "2h 00m"

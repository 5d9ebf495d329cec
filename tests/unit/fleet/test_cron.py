"""Cron expressions over the days on which clocks change, and windows made of them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.core.errors import InvalidInput
from llmagentos.fleet import cron
from llmagentos.fleet.windows import Windows

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def fires(expression: str, zone: str, begin: float, end: float) -> list[str]:
    found = []
    moment = cron.following(expression, zone, begin)
    while moment is not None and moment < end:
        found.append(datetime.datetime.fromtimestamp(moment, ZoneInfo("UTC")).strftime("%dT%H:%M"))
        moment = cron.following(expression, zone, moment)
    return found


def test_an_hour_that_is_left_out_fires_right_after_it():
    found = fires("30 2 * * *", BERLIN, at("2026-03-27T12:00"), at("2026-03-30T12:00"))
    assert found == ["28T01:30", "29T01:00", "30T00:30"]  # on the 29th 02:30 does not exist: 03:00 CEST


def test_an_hour_that_comes_twice_fires_once():
    found = fires("30 2 * * *", BERLIN, at("2026-10-24T12:00"), at("2026-10-26T12:00"))
    assert found == ["25T00:30", "26T01:30"]


def test_every_half_hour_goes_by_the_time_that_passes():
    spring = fires("*/30 * * * *", BERLIN, at("2026-03-29T00:10"), at("2026-03-29T02:10"))
    autumn = fires("*/30 * * * *", BERLIN, at("2026-10-25T00:10"), at("2026-10-25T02:10"))
    assert spring == ["29T00:30", "29T01:00", "29T01:30", "29T02:00"]
    assert autumn == ["25T00:30", "25T01:00", "25T01:30", "25T02:00"]


def test_a_zone_half_an_hour_off():
    assert fires("0 3 * * *", "Australia/Lord_Howe", at("2026-04-04T00:00"), at("2026-04-06T00:00")) == [
        "04T16:30",
        "05T16:30",
    ]


EXPRESSIONS = ["30 2 * * *", "*/20 * * * *", "15 */6 * * *", "0 0 1 * *", "5 1 * * MON-FRI", "0 12 29 2 *"]
ZONES = ["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(EXPRESSIONS[:-1]),
    st.sampled_from(ZONES),
    st.floats(at("2026-01-01T00:00"), at("2027-12-31T00:00")),
)
def test_the_latest_time_is_the_one_before_the_following(expression, zone, now):
    found = cron.latest(expression, zone, now, since=now - 40 * 86_400)
    assert found is not None and found <= now
    after = cron.following(expression, zone, found)
    assert after is not None and after > now
    assert cron.latest(expression, zone, now, since=found) is None


@pytest.mark.parametrize("text", ["", "* * *", "61 * * * *", "0 0 31 2 *", "x", "0 0 * * * * *", "* * * * MON#9"])
def test_what_is_no_expression_is_said(text):
    with pytest.raises(InvalidInput):
        cron.check(text, "UTC")


@given(st.text(max_size=30))
def test_any_text_is_an_expression_or_refused(text):
    try:
        cron.check(text, "UTC")
    except InvalidInput:
        return
    assert cron.following(text, BERLIN, at("2026-01-01T00:00")) is not None


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "UTC\0", "/etc/localtime", "Europe"])
def test_what_is_no_zone_is_said(zone):
    with pytest.raises(InvalidInput, match="time zone"):
        cron.check("0 0 * * *", zone)


@dataclass
class Window:
    cron: str
    duration_s: float
    zone: str = "UTC"


def test_a_window_opens_and_closes():
    windows = Windows({"nightly": Window("0 22 * * FRI", 4 * 3600, BERLIN)})
    assert not windows.opening("nightly", at("2026-11-20T21:59", BERLIN)).open
    assert windows.opening("nightly", at("2026-11-20T12:00", BERLIN)).until == at("2026-11-20T22:00", BERLIN)
    assert windows.opening("nightly", at("2026-11-20T22:00", BERLIN)).open
    late = windows.opening("nightly", at("2026-11-21T01:59", BERLIN))
    assert (late.open, late.until) == (True, at("2026-11-21T02:00", BERLIN))
    assert not windows.opening("nightly", at("2026-11-21T02:00", BERLIN)).open


def test_a_window_that_is_gone_stays_closed():
    opening = Windows({}).opening("gone", 0.0)
    assert (opening.open, opening.until) == (False, None)


def test_a_window_that_cannot_be_is_refused_at_the_start():
    with pytest.raises(InvalidInput, match="no cron expression"):
        Windows({"bad": Window("never", 60)})

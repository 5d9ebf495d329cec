"""The circuit breaker: its four transitions, and that a quota error needs no second one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmagentos.kernel.breaker import Breaker, BreakerSettings


def test_failures_open_it_a_probe_closes_it() -> None:
    breaker = Breaker()
    opened = [breaker.failed("boom", 0.0) for _ in range(5)]
    assert opened == [False, False, False, False, True]
    assert not breaker.allows(1.9)
    assert breaker.retry_after(1.0) == 1.0
    assert breaker.allows(2.0)
    assert not breaker.allows(2.0)  # one probe at a time
    breaker.succeeded()
    assert breaker.state(2.0) == "closed"
    assert breaker.reason == ""


def test_each_failed_probe_doubles_the_pause() -> None:
    breaker = Breaker(BreakerSettings(longest_pause_s=5.0))
    for _ in range(5):
        breaker.failed("boom", 0.0)
    now, pauses = 0.0, []
    for _ in range(3):
        now += breaker.retry_after(now)
        assert breaker.allows(now)
        assert breaker.failed("boom", now)
        pauses.append(breaker.retry_after(now))
    assert pauses == [4.0, 5.0, 5.0]


def test_occasional_failures_do_not_open_it() -> None:
    breaker = Breaker()
    for _ in range(50):
        assert not breaker.failed("blip", 0.0)
        for _ in range(4):
            breaker.succeeded()
    assert breaker.allows(0.0)


def test_a_quota_error_opens_it_at_once() -> None:
    breaker = Breaker()
    assert breaker.exhausted("insufficient_quota", 0.0, 30.0)
    assert not breaker.exhausted("insufficient_quota", 1.0, 30.0)  # it was open already
    assert not breaker.allows(30.9)
    breaker.succeeded()  # an answer that was on its way proves nothing
    assert not breaker.allows(30.9)
    assert breaker.allows(31.0)


def test_an_abandoned_probe_lets_the_next_one_through() -> None:
    breaker = Breaker()
    breaker.exhausted("quota", 0.0, 1.0)
    assert breaker.allows(1.0)
    breaker.abandoned()
    assert breaker.allows(1.0)
    assert not breaker.failed("late", 1.0) or breaker.state(1.0) == "open"


@given(st.lists(st.tuples(st.sampled_from(["ok", "bad", "quota", "gone"]), st.floats(0, 10)), max_size=60))
def test_it_always_lets_calls_through_again(ends: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for end, pause in ends:
        now += pause
        if not breaker.allows(now):
            assert breaker.state(now) == "open"
            assert breaker.retry_after(now) > 0
            continue
        match end:
            case "ok":
                breaker.succeeded()
            case "bad":
                breaker.failed("bad", now)
            case "quota":
                breaker.exhausted("quota", now)
            case _:
                breaker.abandoned()
    assert breaker.allows(now + breaker.retry_after(now) + 1e-6)

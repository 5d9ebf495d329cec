"""Limits that are found by trying, and limits per minute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.kernel.concurrency import AdaptiveLimit, Throughput, TokenBucket


def drive(limit: AdaptiveLimit, bears: int, rounds: int) -> list[int]:
    """An endpoint that refuses what is above `bears`; the limit after each round of a second."""
    found = []
    for second in range(rounds):
        begun, running = float(second), limit.slots
        for number in range(running):
            if number < bears:
                limit.succeeded(running=running, begun=begun, ttft_s=0.2, now=begun + 0.9)
            else:
                limit.overloaded(begun=begun, now=begun + 0.1)
        found.append(limit.slots)
    return found


@pytest.mark.parametrize("bears", [1, 3, 8, 40])
def test_it_finds_what_an_endpoint_bears(bears: int) -> None:
    limits = drive(AdaptiveLimit(100), bears, 200)[50:]
    assert max(limits) <= bears + 1
    assert sum(limits) / len(limits) >= 0.7 * bears


def test_one_burst_of_refusals_counts_once() -> None:
    limit = AdaptiveLimit(100, start=50)
    for _ in range(50):
        limit.overloaded(begun=0.0, now=1.0)
    assert limit.slots == 35


def test_it_does_not_grow_while_it_is_not_used() -> None:
    limit = AdaptiveLimit(100, start=10)
    for second in range(100):
        limit.succeeded(running=2, begun=second, ttft_s=None, now=second + 0.5)
    assert limit.slots == 10


def test_first_tokens_that_come_late_mean_too_much() -> None:
    limit = AdaptiveLimit(100, start=10)
    for second in range(5):
        limit.succeeded(running=10, begun=second, ttft_s=0.2, now=second + 0.5)
    before = limit.slots
    limit.succeeded(running=10, begun=6.0, ttft_s=5.0, now=11.0)
    assert limit.slots < before


def test_it_never_closes_and_never_exceeds_the_most() -> None:
    limit = AdaptiveLimit(3)
    for second in range(100):
        limit.overloaded(begun=second, now=second + 0.1)
    assert limit.slots == 1
    drive(limit, 100, 100)
    assert limit.slots == 3


@given(
    st.integers(1, 600),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 700)), max_size=60),
)
def test_a_bucket_gives_no_more_than_its_rate(per_minute: int, wishes: list[tuple[float, int]]) -> None:
    bucket, now, taken = TokenBucket(per_minute), 0.0, 0
    for pause, units in wishes:
        now += pause
        ready = bucket.ready_at(units, now)
        assert ready >= now
        now = ready
        bucket.take(units, now)
        taken += units
        # A minute's worth may be saved up, and one wish may be larger than the bucket.
        assert taken <= per_minute + now * per_minute / 60 + 700 + 1e-6


def test_a_bucket_is_ready_when_it_said() -> None:
    bucket = TokenBucket(60)
    bucket.take(60, 0.0)
    assert bucket.ready_at(10, 0.0) == pytest.approx(10.0)
    assert bucket.ready_at(10, 10.0) == 10.0
    assert bucket.ready_at(1_000, 10.0) == pytest.approx(60.0)  # more than it holds: when it is full


def test_an_endpoints_wish_to_be_left_alone_holds() -> None:
    throughput = Throughput(None, None)
    assert throughput.ready_at(5, 1.0) == 1.0
    throughput.back_off(None, 1.0)
    throughput.back_off(0.2, 1.0)
    assert throughput.ready_at(5, 1.0) == 2.0

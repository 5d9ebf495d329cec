"""When nodes measure: often enough, and not all at the same moment."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llmagentos.fleet.node.collect.collector import Pulse


def times(pulse: Pulse, until: float, *, every: float = 15.0, step: float = 0.25) -> list[float]:
    found, now = [], 0.0
    while now < until:
        if pulse.due(now, every):
            found.append(now)
        now += step
    return found


def test_nodes_that_start_together_do_not_measure_together() -> None:
    chance = random.Random(7)
    all_times = [times(Pulse(chance.random()), 60.0) for _ in range(1000)]
    assert all(each[0] == 0.0 for each in all_times), "the first values are there at once"
    later = Counter(int(moment) for each in all_times for moment in each if moment >= 15)
    assert max(later.values()) < 120, "about 67 a second, not a thousand each 15"
    assert min(len(each) for each in all_times) >= 4


EIGHTHS = st.integers(0, 400).map(lambda count: count / 8)  # exact: nothing here is about rounding


@given(st.integers(0, 8), st.sampled_from([1.0, 5.0, 15.0]), st.lists(EIGHTHS, min_size=1, max_size=50))
def test_a_machine_that_is_held_up_measures_once_and_keeps_its_beat(
    phase: int, every: float, naps: list[float]
) -> None:
    pulse, now = Pulse(phase / 8), 100.0
    assert pulse.due(now, every)
    first = pulse.left(now)
    for nap in naps:
        expected = nap >= pulse.left(now)
        now += nap
        assert pulse.due(now, every) == expected
        assert 0 <= pulse.left(now) <= every
        assert (now + pulse.left(now) - 100.0 - first) % every == 0, "its own beat"


def test_another_interval_counts_at_once() -> None:
    pulse = Pulse(1.0)
    assert pulse.due(0.0, 3600.0)
    assert not pulse.due(10.0, 5.0) or pulse.left(10.0) <= 5.0
    assert pulse.left(10.0) <= 5.0

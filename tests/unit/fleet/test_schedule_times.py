"""Schedules against the clock: each time once, the last one for those that were missed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.api.schedules import ScheduleSpec
from llmagentos.fleet.schedule_times import GRACE_S, due, following, jitter, latest, upcoming

ANCHOR = 1_700_000_007.0
SPECS = st.one_of(
    st.builds(ScheduleSpec, every_s=st.floats(10, 4000), jitter_s=st.sampled_from([0.0, 5.0])),
    st.builds(
        ScheduleSpec,
        cron=st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 */5 * * *"]),
        zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
        jitter_s=st.sampled_from([0.0, 30.0]),
    ),
)


@settings(max_examples=60, deadline=None)
@given(SPECS, st.sampled_from(["none", "last"]), st.lists(st.floats(0.1, 20_000), min_size=1, max_size=60))
def test_times_fire_once_in_order_and_not_early(spec, catch_up, naps):
    spec = ScheduleSpec(spec.cron, spec.every_s, spec.zone, spec.jitter_s, catch_up)
    now = since = ANCHOR
    fired = []
    for nap in naps:
        now += nap
        found = due("s", spec, ANCHOR, since=since, now=now)
        if found is None:
            over = now - spec.jitter_s - 0.002  # a time that is a rounding error short counts as one up to then
            assert latest(spec, ANCHOR, over, since=since) is None
            continue
        assert since < found.done <= now
        since = found.done
        if found.fire is not None:
            fired.append(found.fire)
            late = now - found.fire - jitter("s", found.fire, spec.jitter_s)
            assert late >= 0, "never before its time"
            assert late <= GRACE_S or catch_up == "last"
        assert due("s", spec, ANCHOR, since=since, now=now) is None, "one at a look"
    assert fired == sorted(set(fired))
    assert all(following(spec, ANCHOR, each - 0.5) == pytest.approx(each) for each in fired)


@settings(max_examples=40, deadline=None)
@given(SPECS, st.integers(1, 200))
def test_a_clock_that_is_looked_at_often_misses_nothing(spec, minutes):
    end = ANCHOR + minutes * 60
    expected, moment = [], following(spec, ANCHOR, ANCHOR)
    while moment is not None and moment + jitter("s", moment, spec.jitter_s) <= end - 5:
        expected.append(moment)
        moment = following(spec, ANCHOR, moment)
    fired, since, now = [], ANCHOR, ANCHOR
    while now <= end:
        if (found := due("s", spec, ANCHOR, since=since, now=now)) is not None:
            since = found.done
            fired.append(found.fire)
        now += 5.0
    if spec.jitter_s == 0.0:
        assert fired[: len(expected)] == pytest.approx(expected)
    assert None not in fired


def test_missed_times_are_dropped_or_the_last_is_made_up_for():
    every = {"every_s": 100.0}
    now = ANCHOR + 1090
    assert due("s", ScheduleSpec(**every), ANCHOR, since=ANCHOR, now=now).fire is None
    last = due("s", ScheduleSpec(**every, catch_up="last"), ANCHOR, since=ANCHOR, now=now)
    assert last.fire == last.done == ANCHOR + 1000


@given(st.text(max_size=20), st.floats(0, 2e9), st.floats(0, 86_400))
def test_a_jitter_is_within_its_bounds_and_always_the_same(name, moment, most):
    found = jitter(name, moment, most)
    assert 0 <= found <= most
    assert found == jitter(name, moment, most)


def test_the_next_times():
    spec = ScheduleSpec(every_s=60.0)
    assert upcoming(spec, 0.0, 130.0, 3) == [180.0, 240.0, 300.0]
    assert upcoming(ScheduleSpec(cron="0 0 29 2 *"), 0.0, 1_770_000_000.0, 2) == [1_835_395_200.0, 1_961_625_600.0]

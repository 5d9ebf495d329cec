"""Replays: nothing is lost or invented, policies do what they promise, the drawings are SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.kernel.policy import POLICIES
from llmagentos.kernel.simulator.drawing import fairness, gantt
from llmagentos.kernel.simulator.engine import EngineModel
from llmagentos.kernel.simulator.generators import GENERATORS, generate
from llmagentos.kernel.simulator.measures import jain, max_min, quantile, report, widest_gap
from llmagentos.kernel.simulator.replay import ORACLE, Replay, replay
from llmagentos.kernel.simulator.trace import Call, Run, Step

STUB = EngineModel(slots=4, prefill=1e9, decode=100)


def heavy_light(policy: str) -> Replay:
    return replay(generate("heavy-light", seed=1, runs=16, load=1, engine=STUB), policy, STUB)


@pytest.mark.parametrize("policy", [*POLICIES, ORACLE])
@settings(max_examples=8, deadline=None)
@given(kind=st.sampled_from(sorted(GENERATORS)), seed=st.integers(0, 1 << 16), slots=st.integers(1, 8))
def test_every_call_runs_once_in_a_slot_of_its_own(policy: str, kind: str, seed: int, slots: int) -> None:
    engine = EngineModel(slots=slots)
    trace = generate(kind, seed=seed, runs=25, load=1.1, engine=engine)
    found = replay(trace, policy, engine)
    assert Counter(record.run.id for record in found.runs) == Counter(run.id for run in trace)
    asked = Counter((run.id, c.tokens_in + c.tokens_out) for run in trace for step in run.steps for c in step.calls)
    assert Counter((call.run.id, call.tokens) for call in found.calls) == asked
    for slot in range(slots):
        times = sorted((call.begun, call.ended) for call in found.calls if call.slot == slot)
        assert all(before[1] <= after[0] + 1e-9 for before, after in pairwise(times))
    for record in found.runs:
        assert record.slowdown >= 1 - 1e-9
    # Work-conserving: nothing waits while a slot is free.
    moments = sorted({call.begun for call in found.calls})
    for call in found.calls:
        for moment in moments:
            if call.submitted <= moment < call.begun:
                assert sum(c.begun <= moment < c.ended for c in found.calls) == slots


def test_light_runs_do_not_wait_for_heavy_ones() -> None:
    """The figures of issue 3: light runs' mean at most 0.4 of FCFS, makespan at most 1.1."""
    fcfs, plas, fair, oracle = (report(heavy_light(policy)) for policy in ("fcfs", "plas", "fair", ORACLE))
    for ours in (plas, fair):
        light = {group.name: group.mean for group in ours.kinds}["light"]
        assert light <= 0.4 * {group.name: group.mean for group in fcfs.kinds}["light"]
        assert ours.makespan <= 1.1 * fcfs.makespan
    assert oracle.total.mean <= plas.total.mean


def test_a_light_tenant_does_not_wait_for_a_greedy_one() -> None:
    engine = EngineModel()
    trace = generate("greedy", seed=1, runs=1_500, load=1.3, engine=engine)
    waits = {
        policy: {group.name: group.wait for group in report(replay(trace, policy, engine)).tenants}
        for policy in ("fcfs", "fair")
    }
    assert waits["fair"]["light"] < 1.0 < 20.0 < waits["fcfs"]["light"]


def test_replays_repeat_themselves() -> None:
    assert heavy_light("fair").calls == heavy_light("fair").calls


def test_pauses_and_fan_out_take_their_time() -> None:
    run = Run("r", 1.0, "t", "k", (Step((Call(0, 100), Call(0, 50)), 2.0), Step((Call(0, 100),), 9.0)))
    (record,) = replay([run], "fcfs", STUB).runs
    assert record.ended == pytest.approx(1.0 + 1.0 + 2.0 + 1.0)  # nobody waits after the last step
    assert record.slowdown == pytest.approx(1.0)


def test_a_cached_context_is_not_computed_again() -> None:
    run = Run("r", 0.0, "t", "k", (Step((Call(1_000, 50),)), Step((Call(1_500, 50),))))
    engine = EngineModel(slots=1, prefill=1_000, decode=50, cached_runs=1)
    (record,) = replay([run], "fcfs", engine).runs
    assert record.ended == pytest.approx((1.0 + 1.0) + (0.45 + 1.0))


def test_measures() -> None:
    assert jain([1, 1, 1]) == pytest.approx(1.0)
    assert jain([1, 0, 0]) == pytest.approx(1 / 3)
    assert jain([]) == 1.0
    assert max_min([1, 5, 9], 9) == [1, 4, 4]
    assert max_min([1, 2], 9) == [1, 2]
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([], 0.5) == 0.0


def test_the_fairness_index_tells_who_got_less_than_its_share() -> None:
    """Both tenants want more than there is; one asks for nine times as much."""
    engine = EngineModel(slots=2)
    runs = [Run(f"g{n}", n * 1e-3, "greedy", "k", (Step((Call(100, 50),)),)) for n in range(180)]
    runs += [Run(f"l{n}", n * 9e-3, "light", "k", (Step((Call(100, 50),)),)) for n in range(20)]
    runs += [Run("end", 30.0, "greedy", "k", (Step((Call(100, 50),)),))]
    trace = sorted(runs, key=lambda run: run.at)
    fcfs, fair = replay(trace, "fcfs", engine), replay(trace, "fair", engine)
    assert report(fair).jain > 0.99
    assert report(fcfs).jain < 0.9
    assert widest_gap(fair, "greedy", "light", until=15.0) < widest_gap(fcfs, "greedy", "light", until=15.0)


def test_drawings_are_svg_and_escape_what_they_show() -> None:
    run = Run("<r>", 0.0, "a & b", "<kind>", (Step((Call(10, 10),)),))
    found = [replay([run], policy, STUB) for policy in ("fcfs", "fair")]
    bars = ElementTree.fromstring(gantt(found, time_label="s", slot_label="slot"))
    space = "{http://www.w3.org/2000/svg}"
    assert [title.text for title in bars.iter(f"{space}title")] == ["<r>: 0.00 - 0.10"] * 2
    curves = ElementTree.fromstring(fairness(found, time_label="s", service_label="tokens"))
    assert len(list(curves.iter(f"{space}polyline"))) == 2
    assert "a & b" in {text.text for text in curves.iter(f"{space}text")}

"""When a model is in memory: the table of states, late news of earlier processes, and keep-alive."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.kernel.residency import TRANSITIONS, Residency, Seen


def residency(*, wanted: bool = False, idle_s: float | None = None) -> Residency:
    return Residency(generation=0 if wanted else None, last=0, idle_s=idle_s, now=0.0)


def ready(generation: int = 1) -> Seen:
    return Seen("ready", generation, alive=True, supervised=True)


def test_a_call_loads_it_and_idleness_drops_it() -> None:
    model = residency(idle_s=60.0)
    assert (model.state, model.idle_at) == ("unloaded", None)
    assert model.want(1.0)
    assert (model.state, model.generation) == ("loading", 1)
    assert not model.see(Seen(None, supervised=True), 2.0)
    assert model.see(ready(), 5.0)
    assert (model.state, model.since, model.idle_at) == ("ready", 5.0, 61.0)
    assert not model.idle(busy=1, now=70.0)
    assert not model.idle(busy=0, now=129.0)
    assert model.idle(busy=0, now=130.0)
    model.drop(130.0)
    assert (model.state, model.generation) == ("unloaded", None)
    assert model.want(131.0)
    assert model.generation == 2


def test_one_that_stays_is_never_idle() -> None:
    model = residency(wanted=True)
    model.see(ready(0), 1.0)
    assert not model.idle(busy=0, now=1e9)


@pytest.mark.parametrize(
    ("seen", "state", "note"),
    [
        (Seen(None), "failed", "its process was not started"),
        (Seen(None, supervised=True), "loading", "it is being started"),
        (Seen("loading", 0, alive=True), "loading", None),
        (Seen("ready", 0, alive=True), "ready", None),
        (Seen("ready", 0), "failed", "its process ended"),
        (Seen("ready", 0, supervised=True), "loading", "its process ended and is started again"),
        (Seen("failed", 0, message="no file"), "failed", "no file"),
        (Seen("ready", 9, alive=True, supervised=True), "loading", "it is being started"),  # of another generation
    ],
)
def test_what_is_seen_of_its_process(seen: Seen, state: str, note: str | None) -> None:
    for before in (None, Seen("ready", 0, alive=True), Seen("failed", 0, message="x")):
        model = residency(wanted=True)
        if before is not None:
            model.see(before, 1.0)
        model.see(seen, 2.0)
        assert (model.state, model.note) == (state, note)


SEEN = st.builds(
    Seen,
    st.sampled_from([None, "loading", "ready", "failed"]),
    st.integers(0, 4),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "why"]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("see"), SEEN),
        st.tuples(st.just("want"), st.none()),
        st.tuples(st.just("drop"), st.none()),
        st.tuples(st.just("rest"), st.integers(0, 2)),
    ),
    max_size=30,
)


@given(st.booleans(), STEPS)
def test_whatever_happens(wanted: bool, steps: list[tuple[Literal["see", "want", "drop", "rest"], object]]) -> None:
    model = residency(wanted=wanted, idle_s=5.0)
    highest = 0
    for now, (what, value) in enumerate(steps):
        before, generation = model.state, model.generation
        if what == "see":
            assert isinstance(value, Seen)
            model.see(value, float(now))
            if model.state == "ready" and before != "ready":  # only a live process of this very generation is used
                assert (value.reported, value.generation, value.alive) == ("ready", generation, True)
            assert model.generation == generation
        elif what == "want":
            if model.want(float(now)):
                assert before == "unloaded"
                assert model.generation is not None
                assert model.generation > highest
        elif what == "drop":
            model.drop(float(now))
        elif model.idle(int(str(value)), float(now)):
            assert value == 0  # never while calls use it
            assert before in ("ready", "failed")
            model.drop(float(now))
        highest = max(highest, model.generation or 0)
        assert (model.state == "unloaded") == (model.generation is None)
        assert before == model.state or any(
            from_ == before and to == model.state for (from_, _), to in TRANSITIONS.items()
        )

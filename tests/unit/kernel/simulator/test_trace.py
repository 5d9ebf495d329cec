"""Traces as text: what is written is read again, and what is wrong is named with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.core.errors import InvalidInput
from llmagentos.kernel.simulator.engine import EngineModel
from llmagentos.kernel.simulator.generators import GENERATORS, generate
from llmagentos.kernel.simulator.trace import Call, Run, Step, dumps, loads

CALLS = st.builds(Call, st.integers(0, 10_000), st.integers(0, 5_000))
STEPS = st.builds(Step, st.lists(CALLS, min_size=1, max_size=3).map(tuple), st.integers(0, 100).map(float))
RUNS = st.builds(
    Run,
    st.uuids().map(str),
    st.integers(0, 1_000).map(float),
    st.text(max_size=5),
    st.text(max_size=5),
    st.lists(STEPS, min_size=1, max_size=3).map(tuple),
    st.integers(-20, 19),
)


@given(st.lists(RUNS, min_size=1, max_size=5, unique_by=lambda run: run.id))
def test_what_is_written_is_read_again(runs: list[Run]) -> None:
    assert loads(dumps(runs)) == sorted(runs, key=lambda run: run.at)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not a run"),
        ("[]", "not a run"),
        ('"x"', "not a run"),
        ('{"id": "r", "at": 0}', "'steps' is missing"),
        ('{"id": "r", "at": 0, "steps": []}', "needs steps"),
        ('{"id": "r", "at": 0, "steps": [{"calls": []}]}', "needs steps"),
        ('{"id": "r", "at": -1, "steps": [{"calls": [[1, 1]]}]}', "at must be seconds"),
        ('{"id": "r", "at": NaN, "steps": [{"calls": [[1, 1]]}]}', "at must be seconds"),
        ('{"id": "r", "at": true, "steps": [{"calls": [[1, 1]]}]}', "at must be seconds"),
        ('{"id": "r", "at": 0, "steps": [{"calls": [[1]]}]}', "tokens in, tokens out"),
        ('{"id": "r", "at": 0, "steps": [{"calls": [[1, -1]]}]}', "tokens in, tokens out"),
        ('{"id": "r", "at": 0, "steps": [{"calls": [[1, 1]], "pause": "x"}]}', "pause must be"),
        ('{"id": "r", "at": 0, "priority": 40, "steps": [{"calls": [[1, 1]]}]}', "priority must be"),
        ('{"id": "ok", "at": 0, "steps": [{"calls": [[1, 1]]}]}', "was there before"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(line: str, reason: str) -> None:
    good = '{"id": "ok", "at": 0, "steps": [{"calls": [[1, 1]]}]}'
    with pytest.raises(InvalidInput, match=reason) as caught:
        loads([good, "", line], name="t.jsonl")
    assert caught.value.message.startswith("t.jsonl:3: ")


def test_an_empty_trace_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no runs"):
        loads([])


@pytest.mark.parametrize("kind", sorted(GENERATORS))
def test_generators_repeat_themselves_by_seed(kind: str) -> None:
    engine = EngineModel()
    one, again, other = (generate(kind, seed=seed, runs=40, load=0.9, engine=engine) for seed in (1, 1, 2))
    assert one == again
    assert len(one) == 40
    assert loads(dumps(one)) == one
    if kind != "heavy-light":
        assert one != other


def test_sizes_are_those_of_the_published_traces() -> None:
    runs = generate("greedy", seed=1, runs=20_000, load=1.0, engine=EngineModel())
    calls = [call for run in runs for step in run.steps for call in step.calls]
    assert sum(call.tokens_in for call in calls) / len(calls) == pytest.approx(1155, rel=0.03)
    assert sum(call.tokens_out for call in calls) / len(calls) == pytest.approx(211, rel=0.03)


def test_the_load_is_what_was_asked_for() -> None:
    engine = EngineModel(slots=8)
    runs = generate("mix", seed=3, runs=5_000, load=0.8, engine=engine)
    work = sum(engine.seconds(call) for run in runs for step in run.steps for call in step.calls)
    assert work / engine.slots / runs[-1].at == pytest.approx(0.8, rel=0.05)

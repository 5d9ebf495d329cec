"""The fold: what a log can be, and what it adds up to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.agents.log import Log, apply, detail, fold, summary
from llmagentos.agents.states import TRANSITIONS, InvalidTransition, RunEnded
from llmagentos.api.runs import (
    Answered,
    ApprovalNotified,
    ApprovalRequested,
    Approved,
    Claimed,
    Created,
    Data,
    Denied,
    Exited,
    Failed,
    Killed,
    ModelCalled,
    ModelReplied,
    ModelUsed,
    Paused,
    Purpose,
    Reniced,
    Resumed,
    RunEvent,
    RunState,
    ToolAnswered,
    ToolCalled,
    ToolRefused,
)
from llmagentos.core.errors import Conflict

CREATED = Created("support", 1, "m", "hello", "admin:me")


def log_of(*data: Data, at: float = 0.0) -> Log:
    return fold(RunEvent(i, at + i, item) for i, item in enumerate(data, 1))


def any_event() -> st.SearchStrategy[Data]:
    calls = st.sampled_from(["a", "b"])
    return st.one_of(
        st.just(CREATED),
        st.builds(Claimed, holder=st.just("h"), fence=st.integers(1, 5)),
        st.builds(ModelCalled, purpose=st.sampled_from(Purpose), model=st.just("m")),
        st.builds(
            ModelReplied,
            purpose=st.sampled_from(Purpose),
            text=st.just("x"),
            tokens_in=st.integers(0, 9),
            tokens_out=st.integers(0, 9),
        ),
        st.builds(ToolCalled, call_id=calls, name=st.just("t"), arguments=st.just({})),
        st.builds(ToolAnswered, call_id=calls, result=st.just(1)),
        st.builds(ToolRefused, call_id=calls, name=st.just("t"), arguments=st.just({}), error=st.just("no")),
        st.builds(ApprovalRequested, call_id=calls, name=st.just("t"), arguments=st.just({})),
        st.builds(ApprovalNotified, call_id=calls, attempts=st.just(1)),
        st.builds(Approved, call_id=calls, by=st.just("admin:me")),
        st.builds(Denied, call_id=calls, by=st.just("admin:me")),
        st.just(Answered("done")),
        st.just(Failed("no")),
        st.just(Killed("admin:me")),
        st.builds(Exited, code=st.sampled_from([None, 1])),
        st.builds(Paused, by=st.just("admin:me"), now=st.booleans()),
        st.just(Resumed("admin:me")),
        st.builds(Reniced, priority=st.integers(-20, 19), by=st.just("admin:me")),
        st.builds(ModelUsed, call=calls, model=st.just("m"), status=st.just("succeeded"), tokens_in=st.integers(0, 9)),
    )


@given(st.lists(any_event(), max_size=30))
def test_whatever_is_tried_the_log_stays_sound(tries: list[Data]) -> None:
    """Events that cannot follow are refused; the others keep every rule of a run."""
    log, events = Log(), list[RunEvent]()
    for data in tries:
        event = RunEvent(log.seq + 1, float(len(events)), data)
        ended = log.ended_at is not None
        try:
            log = apply(log, event)
        except Conflict:
            continue
        events.append(event)
        assert not ended
    assert fold(events) == log
    assert not events or events[0].type == "created"
    assert sum(event.type in ("answered", "failed", "exited", "killed") for event in events) <= 1
    assert log.open_model is None or not (log.open_tools or log.questions)
    assert not (log.open_tools and log.questions)
    fences = [event.data.fence for event in events if isinstance(event.data, Claimed)]
    assert fences == sorted(set(fences))
    settled = ("tool_answered", "tool_refused", "denied")
    assert len(log.tools) == sum(event.type in settled for event in events)
    assert sum(turn.made for turn in log.tools) <= log.tool_calls
    assert len({turn.call_id for turn in log.tools}) == len(log.tools)
    counted = [event.data for event in events if isinstance(event.data, ModelReplied | ModelUsed)]
    assert log.tokens == sum(data.tokens_in + data.tokens_out for data in counted)
    assert (log.state is RunState.PAUSED) == (log.paused is not None and log.ended_at is None)
    if log.state is RunState.WAITING or log.before_pause is RunState.WAITING:
        assert log.questions or log.ended_at is not None
    if log.questions:
        assert RunState.WAITING in (log.state, log.before_pause)


@given(st.lists(any_event(), max_size=40))
def test_a_call_is_made_once_and_only_after_what_a_person_said(tries: list[Data]) -> None:
    """Of a call that a person was asked about nothing happens before the answer, and nothing at all after a no."""
    log = Log()
    called: list[str] = []
    for number, data in enumerate([CREATED, Claimed("h", 1), *tries]):
        asked = {question.call_id for question in log.questions}
        denied = {turn.call_id for turn in log.tools if not turn.made}
        try:
            log = apply(log, RunEvent(log.seq + 1, float(number), data))
        except Conflict:
            continue
        if isinstance(data, ToolCalled):
            assert data.call_id not in asked | denied
            called.append(data.call_id)
        if asked and not isinstance(data, Killed | Exited):
            assert not isinstance(data, Claimed | ModelCalled | ToolCalled | ToolAnswered | Answered | Failed)
    assert len(called) == len(set(called))


@given(st.lists(any_event(), max_size=40))
def test_while_a_run_is_paused_nothing_begins(tries: list[Data]) -> None:
    """Only what was under way ends; resumed, the run is what it was before."""
    log, before = Log(), None
    for number, data in enumerate([CREATED, Claimed("h", 1), *tries]):
        was = log.state
        try:
            log = apply(log, RunEvent(log.seq + 1, float(number), data))
        except Conflict:
            continue
        if isinstance(data, Paused):
            before = was
        if was is RunState.PAUSED:
            assert not isinstance(data, ModelCalled | ToolCalled | Claimed | Failed)
        if isinstance(data, Resumed):
            assert (was, log.state) == (RunState.PAUSED, before)
        elif was is RunState.PAUSED and log.ended_at is None:
            assert log.state is RunState.PAUSED


@pytest.mark.parametrize("event", sorted(TRANSITIONS))
@pytest.mark.parametrize("state", [state for state in RunState if state.ended])
def test_nothing_leaves_an_end(event: str, state: RunState) -> None:
    assert state not in TRANSITIONS[event].sources


def test_every_kind_of_event_has_a_transition() -> None:
    assert {kind.__struct_config__.tag for kind in Data.__args__} == set(TRANSITIONS)


def test_events_come_in_order() -> None:
    with pytest.raises(InvalidTransition, match="event 3 cannot follow on event 1"):
        apply(log_of(CREATED), RunEvent(3, 0.0, Claimed("h", 1)))


def test_an_ended_run_takes_nothing() -> None:
    with pytest.raises(RunEnded, match="been killed"):
        apply(log_of(CREATED, Killed("me")), RunEvent(3, 0.0, Claimed("h", 1)))


@pytest.mark.parametrize(
    "data",
    [
        [ModelReplied(Purpose.ANSWER, "x")],
        [ModelCalled(Purpose.TOOL, "m"), ModelReplied(Purpose.ANSWER, "x")],
        [ToolAnswered("a")],
        [ToolCalled("a", "t", {}), ToolAnswered("b")],
        [ToolCalled("a", "t", {}), ModelCalled(Purpose.TOOL, "m")],
        [ToolCalled("a", "t", {}), ToolCalled("a", "t", {})],
        [ToolCalled("a", "t", {}), ToolAnswered("a"), ToolCalled("a", "t", {})],
        [ToolCalled("a", "t", {}), ApprovalRequested("b", "t", {})],
        [ApprovalRequested("a", "t", {}), Approved("b", "admin:me")],
        [ApprovalRequested("a", "t", {}), ToolCalled("a", "t", {})],
        [ApprovalRequested("a", "t", {}), Claimed("h", 2)],
        [Claimed("h", 1)],
    ],
)
def test_what_cannot_follow_is_refused(data: list[Data]) -> None:
    with pytest.raises(InvalidTransition):
        log_of(CREATED, Claimed("h", 1), *data)


def test_a_claim_forgets_an_unfinished_model_call_but_no_tool_call() -> None:
    log = log_of(CREATED, Claimed("h", 1), ModelCalled(Purpose.TOOL, "m"), Claimed("h", 2))
    assert log.open_model is None
    assert log.model_calls == 1
    log = log_of(CREATED, Claimed("h", 1), ToolCalled("a", "t", {}), Claimed("h", 2))
    assert log.open_tools == (ToolCalled("a", "t", {}),)


def test_waiting_for_a_person_is_no_work_and_their_answer_queues_the_run() -> None:
    """Ten seconds of work, an hour until the answer, a minute until somebody has the run again."""
    data = [Claimed("h", 1), ApprovalRequested("a", "pay", {}), ApprovalRequested("b", "pay", {})]
    events = [RunEvent(1, 0.0, CREATED), *(RunEvent(2 + i, 100.0 + 5 * i, item) for i, item in enumerate(data))]
    log = fold(events)
    assert (log.state, [question.call_id for question in log.questions]) == (RunState.WAITING, ["a", "b"])
    log = apply(log, RunEvent(5, 3000.0, Denied("b", "admin:me", "too dear")))
    assert log.state is RunState.WAITING
    assert log.tools[0].error == "denied by admin:me: too dear"
    log = apply(log, RunEvent(6, 3710.0, Approved("a", "admin:me")))
    assert (log.state, log.agreed) == (RunState.QUEUED, {"a"})
    log = apply(log, RunEvent(7, 3770.0, Claimed("h", 2)))
    assert (log.state, log.active_s) == (RunState.RUNNING, 10.0)


def test_only_work_counts_as_time() -> None:
    """Ten seconds in the first claim, an hour nobody had the run, a clock that was set back."""
    events = [
        RunEvent(1, 0.0, CREATED),
        RunEvent(2, 100.0, Claimed("h", 1)),
        RunEvent(3, 110.0, ModelCalled(Purpose.TOOL, "m")),
        RunEvent(4, 3700.0, Claimed("h", 2)),
        RunEvent(5, 3600.0, ModelCalled(Purpose.TOOL, "m")),
        RunEvent(6, 3600.0, Claimed("h", 3)),
    ]
    assert fold(events).active_s == 10.0
    assert fold(events).started_at == 100.0


def test_a_pause_is_no_work() -> None:
    """Ten seconds of work, an hour's pause, an hour until somebody had the run again."""
    events = [
        RunEvent(1, 0.0, CREATED),
        RunEvent(2, 100.0, Claimed("h", 1)),
        RunEvent(3, 110.0, ModelCalled(Purpose.TOOL, "m")),
        RunEvent(4, 115.0, Paused("me")),
        RunEvent(5, 3715.0, Resumed("me")),
        RunEvent(6, 7315.0, Claimed("h", 2)),
    ]
    assert fold(events).active_s == 10.0


def test_how_a_program_ended_is_told() -> None:
    assert detail("r1", log_of(CREATED, Claimed("h", 1), Exited(3))).error == "exit code 3"
    assert "nobody knows" in str(detail("r1", log_of(CREATED, Claimed("h", 1), Exited())).error)


def test_the_views_show_the_log() -> None:
    data: list[Any] = [
        Created("support", 3, "m", "x" * 500, "admin:me", "s1"),
        Claimed("h", 1),
        ModelCalled(Purpose.ANSWER, "m"),
        ModelReplied(Purpose.ANSWER, "hi", 10, 5),
        Answered("hi", [{"a": 1}]),
    ]
    listed, shown = summary("r1", log_of(*data)), detail("r1", log_of(*data))
    assert (listed.state, listed.version, listed.tokens_in, listed.tokens_out) == (RunState.SUCCEEDED, 3, 10, 5)
    assert len(listed.input) == 200
    assert (shown.answer, shown.sources, len(shown.input)) == ("hi", [{"a": 1}], 500)
    assert (shown.started, shown.ended) == (2.0, 5.0)

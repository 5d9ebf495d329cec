"""FIFO admission as a state machine against a model that is obviously right, and its edges by example."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmagentos.kernel.policy import FCFS
from llmagentos.kernel.scheduling import Capacity, Load, PolicyScheduler, QueueFull, Submission

MODELS = {"small": Capacity(slots=1, queue=2), "large": Capacity(slots=3, queue=4)}


class Fifo(RuleBasedStateMachine):
    """Plain lists of who waits and who runs, beside the scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = PolicyScheduler(MODELS, FCFS)
        self.waiting: dict[str, list[Submission]] = {name: [] for name in MODELS}
        self.running: dict[str, set[str]] = {name: set() for name in MODELS}
        self.now = 0.0
        self.made = 0

    @rule(model=st.sampled_from(sorted(MODELS)), patience=st.none() | st.floats(0.1, 20))
    def submit(self, model: str, patience: float | None) -> None:
        self.made += 1
        call = Submission(str(self.made), model, "me", deadline=None if patience is None else self.now + patience)
        free = MODELS[model].slots - len(self.running[model])
        if len(self.waiting[model]) >= MODELS[model].queue + free:
            with pytest.raises(QueueFull) as refused:
                self.scheduler.submit(call, self.now)
            assert 1 <= refused.value.retry_after <= 60
        else:
            self.scheduler.submit(call, self.now)
            self.waiting[model].append(call)

    @rule()
    def admit(self) -> None:
        expected = []
        for model, capacity in MODELS.items():
            while self.waiting[model] and len(self.running[model]) < capacity.slots:
                call = self.waiting[model].pop(0)
                self.running[model].add(call.id)
                expected.append(call)
        assert [admission.call for admission in self.scheduler.next(self.now)] == expected

    @precondition(lambda self: any(self.running.values()))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from([name for name, ids in self.running.items() if ids]))
        call_id = data.draw(st.sampled_from(sorted(self.running[model])))
        self.scheduler.finish(call_id, self.now)
        self.running[model].remove(call_id)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call_id = str(data.draw(st.integers(1, self.made)))
        waits = any(call.id == call_id for calls in self.waiting.values() for call in calls)
        assert self.scheduler.cancel(call_id) is waits
        self.waiting = {name: [c for c in calls if c.id != call_id] for name, calls in self.waiting.items()}

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        late = {c.id for calls in self.waiting.values() for c in calls if c.deadline and c.deadline <= self.now}
        assert {call.id for call in self.scheduler.expire(self.now)} == late
        self.waiting = {name: [c for c in calls if c.id not in late] for name, calls in self.waiting.items()}

    @invariant()
    def loads_agree(self) -> None:
        for model in MODELS:
            assert self.scheduler.load(model) == Load(len(self.running[model]), len(self.waiting[model]))

    @invariant()
    def next_deadline_is_the_first(self) -> None:
        deadlines = [c.deadline for calls in self.waiting.values() for c in calls if c.deadline is not None]
        assert self.scheduler.next_deadline() == min(deadlines, default=None)


TestFifo = Fifo.TestCase
TestFifo.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_free_slot_is_no_place_in_the_queue() -> None:
    scheduler = PolicyScheduler({"m": Capacity(slots=2, queue=1)}, FCFS)
    for number in range(3):
        scheduler.submit(Submission(str(number), "m", "me"), 0.0)
    with pytest.raises(QueueFull):
        scheduler.submit(Submission("3", "m", "me"), 0.0)
    assert [a.call.id for a in scheduler.next(0.0)] == ["0", "1"]


def test_models_do_not_wait_for_each_other() -> None:
    scheduler = PolicyScheduler({"a": Capacity(1, 9), "b": Capacity(1, 9)}, FCFS)
    for call in (Submission("1", "a", "me"), Submission("2", "a", "me"), Submission("3", "b", "me")):
        scheduler.submit(call, 0.0)
    assert {a.call.id for a in scheduler.next(0.0)} == {"1", "3"}


def test_the_wait_is_told_and_the_retry_follows_what_calls_take() -> None:
    scheduler = PolicyScheduler({"m": Capacity(1, 1)}, FCFS)
    scheduler.submit(Submission("1", "m", "me"), 0.0)
    scheduler.next(0.0)
    for number in range(2, 30):
        scheduler.submit(Submission(str(number), "m", "me"), 0.0)
        scheduler.finish(str(number - 1), 20.0 * (number - 1))
        assert scheduler.next(20.0 * (number - 1))[0].waited == 20.0 * (number - 1)
    scheduler.submit(Submission("30", "m", "me"), 600.0)
    with pytest.raises(QueueFull) as refused:
        scheduler.submit(Submission("31", "m", "me"), 600.0)
    assert 15 < refused.value.retry_after <= 20


def test_misuse_is_refused() -> None:
    scheduler = PolicyScheduler({"m": Capacity(1, 1)}, FCFS)
    scheduler.submit(Submission("1", "m", "me"), 0.0)
    with pytest.raises(ValueError, match="before"):
        scheduler.submit(Submission("1", "m", "me"), 0.0)
    with pytest.raises(ValueError, match="not run"):
        scheduler.finish("1", 0.0)

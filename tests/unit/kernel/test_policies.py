"""The scheduler under every policy: what always holds, whatever is asked of it in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llmagentos.core.errors import InvalidInput
from llmagentos.kernel.calls import PRIORITIES, Capacity, Load, Outcome, QueueFull, Submission, priority_of
from llmagentos.kernel.policy import POLICIES, Policy, geometric
from llmagentos.kernel.scheduling import PolicyScheduler

SLOTS, QUEUE = 3, 12
RUNS = [None, "r1", "r2", "r3", "r4"]


class Calls(RuleBasedStateMachine):
    """Plain sets of who waits and who runs, beside the scheduler."""

    @initialize(name=st.sampled_from(sorted(POLICIES)))
    def begin(self, name: str) -> None:
        self.policy = POLICIES[name]
        self.scheduler = PolicyScheduler({"m": Capacity(SLOTS, QUEUE)}, self.policy)
        self.waiting: dict[str, Submission] = {}
        self.running: dict[str, Submission] = {}
        self.held: set[str] = set()
        self.now = 0.0
        self.made = 0

    @rule(
        run=st.sampled_from(RUNS),
        tenant=st.sampled_from("abc"),
        priority=st.sampled_from([-15, 0, 15]),
        tokens=st.integers(0, 500),
        patience=st.none() | st.floats(0.1, 20),
    )
    def submit(self, run: str | None, tenant: str, priority: int, tokens: int, patience: float | None) -> None:
        self.made += 1
        deadline = None if patience is None else self.now + patience
        call = Submission(str(self.made), "m", "me", run, deadline, tenant=tenant, priority=priority, tokens_in=tokens)
        if len(self.waiting) >= QUEUE + SLOTS - len(self.running):
            with pytest.raises(QueueFull):
                self.scheduler.submit(call, self.now)
            return
        self.scheduler.submit(call, self.now)
        self.waiting[call.id] = call

    @rule()
    def admit(self) -> None:
        while True:
            expected = next((w for w in self.scheduler.waiting("m", self.now) if self.eligible(w.call)), None)
            room = len(self.running) < SLOTS and expected is not None
            # One slot at a time: what is said to be next is what comes next.
            self.scheduler.resize("m", min(SLOTS, len(self.running) + 1))
            admitted = self.scheduler.next(self.now)
            self.scheduler.resize("m", SLOTS)
            assert len(admitted) == int(room)
            if not admitted:
                return
            assert expected is not None
            call = admitted[0].call
            assert expected.position == 1
            if self.policy.beta is None or self.policy.programs == "off":
                assert call.id == expected.call.id
            if self.policy.priorities:
                others = [c.priority for c in self.waiting.values() if self.eligible(c)]
                assert call.priority == min(others)
            self.running[call.id] = self.waiting.pop(call.id)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(0, 300), told=st.booleans())
    def finish(self, data: st.DataObject, tokens: int, told: bool) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.running)))
        self.scheduler.produced(call_id, tokens // 2)
        outcome = Outcome(self.running[call_id].tokens_in // 2, tokens) if told else None
        self.scheduler.finish(call_id, self.now, outcome)
        del self.running[call_id]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def suspend(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.running)))
        self.scheduler.suspend(call_id, self.now)
        self.waiting[call_id] = self.running.pop(call_id)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call_id = str(data.draw(st.integers(1, self.made)))
        assert self.scheduler.cancel(call_id) is (call_id in self.waiting)
        self.waiting.pop(call_id, None)

    @rule(run=st.sampled_from(RUNS[1:]))
    def cancel_run(self, run: str) -> None:
        gone = {call.id for call in self.waiting.values() if call.run_id == run}
        assert set(self.scheduler.cancel_run(run)) == gone
        self.waiting = {key: call for key, call in self.waiting.items() if key not in gone}

    @rule(run=st.sampled_from(RUNS[1:]))
    def hold(self, run: str) -> None:
        self.scheduler.hold(run, self.now)
        self.held.add(run)

    @rule(run=st.sampled_from(RUNS[1:]))
    def release(self, run: str) -> None:
        self.scheduler.release(run, self.now)
        self.held.discard(run)

    @rule(run=st.sampled_from(RUNS[1:]), priority=st.sampled_from([-15, 0, 15]))
    def renice(self, run: str, priority: int) -> None:
        self.scheduler.renice(run, priority, self.now)
        for call_id in [c.id for c in self.waiting.values() if c.run_id == run]:
            found = self.scheduler.explain(call_id, self.now)
            assert found is not None
            assert found.call.priority == priority
            self.waiting[call_id] = found.call

    @rule(run=st.sampled_from(RUNS[1:]))
    def forget(self, run: str) -> None:
        held = {c.id for c in self.waiting.values() if c.run_id == run and run in self.held}
        if not held:
            self.scheduler.forget(run)
            self.held.discard(run)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        late = {c.id for c in self.waiting.values() if c.deadline is not None and c.deadline <= self.now}
        assert {call.id for call in self.scheduler.expire(self.now)} == late
        self.waiting = {key: call for key, call in self.waiting.items() if key not in late}

    def eligible(self, call: Submission) -> bool:
        return call.run_id not in self.held

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        assert self.scheduler.load("m") == Load(len(self.running), len(self.waiting))
        shown = self.scheduler.waiting("m", self.now)
        assert {w.call.id for w in shown} == set(self.waiting)
        assert [w.position for w in shown] == list(range(1, len(shown) + 1))
        assert {w.call.id for w in shown if w.reason == "held"} == {
            c.id for c in self.waiting.values() if not self.eligible(c)
        }
        deadlines = [c.deadline for c in self.waiting.values() if c.deadline is not None]
        assert self.scheduler.next_deadline() == min(deadlines, default=None)


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def submit(scheduler: PolicyScheduler, call_id: str, **more: object) -> None:
    scheduler.submit(Submission(call_id, "m", "me", **more), 0.0)  # type: ignore[arg-type]


def starts(scheduler: PolicyScheduler, now: float = 0.0) -> list[str]:
    return [admission.call.id for admission in scheduler.next(now)]


def test_what_runs_is_never_touched_by_renice() -> None:
    scheduler = PolicyScheduler({"m": Capacity(1, 9)}, POLICIES["fair"])
    submit(scheduler, "1", run_id="r")
    submit(scheduler, "2", run_id="r")
    submit(scheduler, "3", run_id="s")
    assert starts(scheduler) == ["1"]
    scheduler.renice("r", PRIORITIES["batch"], 0.0)
    scheduler.finish("1", 1.0)
    assert starts(scheduler, 1.0) == ["3"]


def test_a_held_run_keeps_its_place_and_its_new_calls_wait_too() -> None:
    scheduler = PolicyScheduler({"m": Capacity(1, 9)}, POLICIES["fcfs"])
    for call_id, run in (("0", "x"), ("1", "r"), ("2", "s")):
        submit(scheduler, call_id, run_id=run)
    assert starts(scheduler) == ["0"]
    scheduler.hold("r", 0.0)
    submit(scheduler, "3", run_id="sub", program="r")
    scheduler.finish("0", 1.0)
    assert starts(scheduler, 1.0) == ["2"]
    scheduler.release("r", 2.0)
    scheduler.finish("2", 2.0)
    assert starts(scheduler, 2.0) == ["1"]


def test_a_breaker_that_opens_takes_all_waiting_calls_out() -> None:
    scheduler = PolicyScheduler({"m": Capacity(1, 9), "n": Capacity(1, 9)}, POLICIES["fair"])
    for number in range(4):
        submit(scheduler, str(number))
    scheduler.submit(Submission("n", "n", "me"), 0.0)
    assert starts(scheduler) == ["0", "n"]
    assert [call.id for call in scheduler.cancel_model("m")] == ["1", "2", "3"]
    assert scheduler.load("m") == Load(1, 0)


def test_preemption_names_the_least_urgent_for_the_most_urgent() -> None:
    scheduler = PolicyScheduler({"m": Capacity(2, 9, preemptive=True)}, POLICIES["fair"])
    submit(scheduler, "batch", priority=15, tokens_in=10)
    submit(scheduler, "normal", priority=0)
    assert len(starts(scheduler)) == 2
    assert scheduler.preemptions() == []
    submit(scheduler, "urgent", priority=-15)
    (found,) = scheduler.preemptions()
    assert (found.victim, found.urgent) == ("batch", "urgent")
    scheduler.produced("batch", 7)
    scheduler.suspend("batch", 1.0)
    assert starts(scheduler, 1.0) == ["urgent"]
    assert scheduler.preemptions() == []  # what waits is less urgent than all that runs
    scheduler.finish("urgent", 2.0)
    assert starts(scheduler, 2.0) == ["batch"]


def test_a_model_without_slots_admits_nothing() -> None:
    scheduler = PolicyScheduler({"m": Capacity(1, 9, preemptive=True)}, POLICIES["fair"])
    scheduler.resize("m", 0)
    submit(scheduler, "1")
    assert starts(scheduler) == []
    assert scheduler.preemptions() == []


def test_priorities_have_names_and_numbers() -> None:
    assert [priority_of(text) for text in ("realtime", "-20", "19", "batch")] == [-15, -20, 19, 15]
    for text in ("20", "-21", "1.5", "urgent"):
        with pytest.raises(InvalidInput, match="no priority"):
            priority_of(text)


def test_limits_per_minute_hold_calls_back_and_say_until_when() -> None:
    scheduler = PolicyScheduler({"m": Capacity(9, 9, requests_per_minute=2)}, POLICIES["fair"])
    for number in range(3):
        submit(scheduler, str(number))
    assert starts(scheduler) == ["0", "1"]
    assert [w.reason for w in scheduler.waiting("m", 0.0)] == ["rate"]
    assert scheduler.next_deadline() == pytest.approx(30.0)
    assert starts(scheduler, 29.0) == []
    assert starts(scheduler, 30.1) == ["2"]


def test_tokens_that_were_not_used_are_given_back() -> None:
    scheduler = PolicyScheduler({"m": Capacity(9, 9, tokens_per_minute=100)}, POLICIES["fair"])
    submit(scheduler, "1", tokens_in=20, tokens_out=80)
    submit(scheduler, "2", tokens_in=20, tokens_out=20)
    assert starts(scheduler) == ["1"]
    scheduler.finish("1", 0.0, Outcome(20, 10))
    assert starts(scheduler) == ["2"]


def test_an_endpoint_that_asks_for_a_pause_gets_it() -> None:
    scheduler = PolicyScheduler({"m": Capacity(4, 9, adaptive=True)}, POLICIES["fair"])
    for number in range(2):
        submit(scheduler, str(number))
    assert starts(scheduler) == ["0"]  # adaptive: begins carefully
    scheduler.finish("0", 1.0, Outcome(overloaded=True, retry_after=7.0))
    assert starts(scheduler, 1.0) == []
    assert [w.reason for w in scheduler.waiting("m", 1.0)] == ["backoff"]
    assert scheduler.next_deadline() == pytest.approx(8.0)
    assert starts(scheduler, 8.0) == ["1"]


def test_limits_told_in_headers_are_believed() -> None:
    scheduler = PolicyScheduler({"m": Capacity(9, 9, requests_per_minute=60)}, POLICIES["fair"])
    scheduler.learn("m", {"requests": 0, "tokens": 5}, 0.0)
    submit(scheduler, "1")
    assert starts(scheduler) == []
    assert starts(scheduler, 1.1) == ["1"]


@pytest.mark.parametrize("name", ["plas", "atlas", "fair"])
def test_no_run_starves(name: str) -> None:
    """New runs come faster than they can be served; a run with much service is not passed over for ever."""
    scheduler = PolicyScheduler({"m": Capacity(1, 10_000)}, POLICIES[name])
    beta = POLICIES[name].beta
    assert beta is not None
    submit(scheduler, "big/0", run_id="big", tenant="t")
    assert starts(scheduler) == ["big/0"]
    scheduler.finish("big/0", 5.0, Outcome(10, 5_000))
    scheduler.submit(Submission("big/1", "m", "me", "big", tenant="t"), 5.0)
    now, number = 5.0, 0
    while now < 5.0 + beta * 5.0 + 10.0:
        for _ in range(2):
            number += 1
            scheduler.submit(Submission(f"s{number}", "m", "me", f"s{number}", tenant="t"), now)
        (admission,) = scheduler.next(now)
        if admission.call.id == "big/1":
            assert admission.waited > 1.0  # it did have to wait
            return
        now += 1.0
        scheduler.finish(admission.call.id, now, Outcome(10, 20))
    pytest.fail("it starved")


def test_atlas_does_not_punish_breadth() -> None:
    """Six parallel calls count as the longest of them, so the run goes before one with two calls in a row."""
    policy = Policy("p", programs="atlas", levels=geometric(150, 2, 4))
    after = {}
    for name in ("atlas", "plas"):
        chosen = POLICIES["plas"] if name == "plas" else policy
        scheduler = PolicyScheduler(
            {"m": Capacity(6, 99)}, Policy(name, programs=chosen.programs, levels=policy.levels)
        )
        for number in range(6):
            submit(scheduler, f"wide{number}", run_id="wide")
        for call_id in starts(scheduler):
            scheduler.finish(call_id, 1.0, Outcome(0, 50))
        for number in range(2):
            submit(scheduler, f"deep{number}", run_id="deep")
            (call_id,) = starts(scheduler)
            scheduler.finish(call_id, 2.0, Outcome(0, 50))
        scheduler.resize("m", 1)
        submit(scheduler, "deep", run_id="deep")
        submit(scheduler, "wide", run_id="wide")
        after[name] = starts(scheduler)
    assert after == {"atlas": ["wide"], "plas": ["deep"]}


def test_memory_is_bounded() -> None:
    """Runs, tenants and calls that are over leave nothing behind that grows."""
    scheduler = PolicyScheduler({"m": Capacity(2, 100)}, POLICIES["fair"])
    lane = scheduler._lanes["m"]
    lane.programs.max_idle = 50
    for number in range(3_000):
        now = float(number)
        call = Submission(str(number), "m", "me", f"r{number}", deadline=now + 1e6, tenant=f"t{number}")
        scheduler.submit(call, now)
        scheduler.cancel(call.id) if number % 3 == 0 else None
        for admission in scheduler.next(now):
            scheduler.finish(admission.call.id, now, Outcome(number % 50, number % 70))
    assert len(lane.programs) <= 51
    assert sum(len(tenants) for tenants in lane._classes.values()) < 200
    assert len(lane._deadlines) < 200
    assert not scheduler._lane_of
    assert not scheduler._calls_of

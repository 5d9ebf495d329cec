"""Budgets as a state machine with crashes and replays; periods, refusals and alerts by example."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import Conflict, NotFound
from llmagentos.kernel.budgets import BudgetTree
from llmagentos.kernel.limits import BudgetExceeded, Limit

ORG, TEAM, OTHER = ("org",), ("org", "red"), ("org", "blue")
RUNS = [(*TEAM, "agent", "r1"), (*TEAM, "agent", "r2"), (*TEAM, "agent", "r2", "sub"), (*OTHER, "helper", "r3")]
LIMITS = {
    ORG: [Limit("tokens", 1_000), Limit("tokens", 300, "hour"), Limit("calls", 40, "day")],
    TEAM: [Limit("tokens", 500), Limit("tokens", 100, "hour", hard=False)],
    RUNS[0]: [Limit("tokens", 120)],
}


class Spending(RuleBasedStateMachine):
    """A ledger of unique calls beside the tree. Calls never take more than they reserved."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.tree = BudgetTree(self.clock)
        for path, limits in LIMITS.items():
            self.tree.set_limits(path, limits)
        self.held: dict[str, tuple[tuple[str, ...], int]] = {}
        self.spent: dict[str, tuple[tuple[str, ...], int, float]] = {}
        self.made = 0

    @rule(path=st.sampled_from(RUNS), tokens=st.integers(0, 150))
    def reserve(self, path: tuple[str, ...], tokens: int) -> None:
        self.made += 1
        before = self.tree.snapshot()
        try:
            self.tree.reserve(str(self.made), path, {"tokens": tokens, "calls": 1})
        except BudgetExceeded as refused:
            assert refused.refusal.limit.hard
            assert refused.retry_after > 0
            assert self.tree.snapshot()["open"] == before["open"]  # in all ancestors or in none
        else:
            self.held[str(self.made)] = (path, tokens)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), more=st.integers(0, 80))
    def extend(self, data: st.DataObject, more: int) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        path, tokens = self.held[call_id]
        try:
            self.tree.extend(call_id, {"tokens": more})
        except BudgetExceeded:
            return
        self.held[call_id] = (path, tokens + more)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), share=st.floats(0, 1))
    def settle(self, data: st.DataObject, share: float) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        path, tokens = self.held.pop(call_id)
        used = int(tokens * share)
        self.tree.settle(call_id, {"tokens": used, "calls": 1})
        self.spent[call_id] = (path, used, self.clock.wall)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[call_id]
        assert self.tree.release(call_id)
        assert not self.tree.release(call_id)

    @precondition(lambda self: self.held or self.spent)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """A crashed run does again what it did: nothing changes."""
        call_id = data.draw(st.sampled_from(sorted({*self.held, *self.spent})))
        before = self.tree.snapshot()
        if call_id in self.held:
            path, tokens = self.held[call_id]
            again = self.tree.reserve(call_id, path, {"tokens": 10_000})
            assert again.amounts["tokens"] == tokens
        else:
            path = self.spent[call_id][0]
            again = self.tree.reserve(call_id, path, {"tokens": 10_000})
            assert again.settled
            assert self.tree.settle(call_id, {"tokens": 77}) == []
            assert self.tree.charge(call_id, path, {"tokens": 77}) == []
        assert self.tree.snapshot() == before

    @rule()
    def crash(self) -> None:
        before, self.tree = self.tree, BudgetTree(self.clock)
        self.tree.load(json.loads(json.dumps(before.snapshot())))

    @rule(seconds=st.sampled_from([1.0, 600.0, 3600.0, 90_000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([10.0, 7200.0]))
    def clock_goes_back(self, seconds: float) -> None:
        self.clock.wall -= seconds

    @invariant()
    def hard_limits_hold(self) -> None:
        for usage in self.tree.usage():
            if usage.limit.hard:
                assert usage.used + usage.reserved <= usage.limit.amount

    @invariant()
    def every_node_is_the_sum_of_the_calls_below(self) -> None:
        for path in {run[:depth] for run in RUNS for depth in range(1, len(run) + 1)}:
            spent = [used for where, used, _ in self.spent.values() if where[: len(path)] == path]
            held = [tokens for where, tokens in self.held.values() if where[: len(path)] == path]
            assert self.tree.spent(path).get("tokens", 0) == sum(spent)
            assert self.tree.spent(path).get("calls", 0) == len(spent)
            assert self.tree.held(path).get("tokens", 0) == sum(held)


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def refused(tree: BudgetTree, call_id: str, path: tuple[str, ...], **amounts: int) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as caught:
        tree.reserve(call_id, path, amounts)  # type: ignore[arg-type]
    return caught.value


def test_refusals_say_what_when_and_where() -> None:
    clock = ManualClock(wall=3600.0 * 1000 + 600)
    tree = BudgetTree(clock)
    tree.set_limits(("org",), [Limit("tokens", 100, "hour")])
    tree.reserve("1", ("org", "a"), {"tokens": 60})
    busy = refused(tree, "2", ("org", "a"), tokens=50)
    assert busy.refusal.retry_after == 1.0  # only what is reserved is in the way
    assert "org allows 100 tokens per hour: 0 used, 60 reserved, 50 wanted" in busy.message
    tree.settle("1", {"tokens": 60})
    assert refused(tree, "2", ("org", "a"), tokens=50).retry_after == 3000.0  # when the hour ends
    assert refused(tree, "2", ("org", "a"), tokens=101).refusal.retry_after is None
    clock.advance(3000.0)
    tree.reserve("2", ("org", "a"), {"tokens": 50})


@pytest.mark.parametrize(
    ("period", "wall", "end"),
    [
        ("hour", 1_700_000_000.0, 1_700_002_800.0),
        ("day", 1_700_000_000.0, 1_700_006_400.0),
        ("month", 1_700_000_000.0, 1_701_388_800.0),  # 1 December 2023
        ("month", 1_703_980_800.0, 1_704_067_200.0),  # New Year
    ],
)
def test_periods_are_those_of_the_calendar(period: str, wall: float, end: float) -> None:
    tree = BudgetTree(ManualClock(wall=wall))
    tree.set_limits(("org",), [Limit("money", 10, period)])  # type: ignore[arg-type]
    (usage,) = tree.usage()
    assert usage.resets_at == end


def test_thresholds_are_told_once_a_period() -> None:
    clock = ManualClock()
    tree = BudgetTree(clock)
    tree.set_limits(("org",), [Limit("money", 100, "day", hard=False)])
    told = [[a.threshold for a in tree.charge(str(n), ("org", "x"), {"money": 30})] for n in range(5)]
    assert told == [[], [0.5], [0.8], [1.0], []]
    clock.advance(86_400)
    assert [a.threshold for a in tree.charge("later", ("org", "x"), {"money": 60})] == [0.5]


def test_soft_limits_never_refuse() -> None:
    tree = BudgetTree(ManualClock())
    tree.set_limits(("org",), [Limit("tokens", 10, hard=False)])
    assert tree.check(("org",), {"tokens": 1_000}) is None


def test_runs_under_way_are_a_limit_too() -> None:
    tree = BudgetTree(ManualClock())
    tree.set_limits(("org", "agent"), [Limit("runs", 2)])
    for run in ("r1", "r2"):
        tree.reserve(f"run:{run}", ("org", "agent", run), {"runs": 1})
    assert refused(tree, "run:r3", ("org", "agent", "r3"), runs=1).refusal.retry_after == 1.0
    assert tree.close(("org", "agent", "r1")) == []
    tree.reserve("run:r3", ("org", "agent", "r3"), {"runs": 1})


def test_a_run_that_ends_settles_what_it_holds_in_full_and_is_forgotten() -> None:
    tree = BudgetTree(ManualClock())
    tree.set_limits(("org",), [Limit("tokens", 100)])
    tree.reserve("1", ("org", "a", "run"), {"tokens": 30})
    tree.reserve("2", ("org", "a", "run", "sub"), {"tokens": 25})
    tree.settle("2", {"tokens": 5})
    assert [alert.threshold for alert in tree.close(("org", "a", "run"))] == []
    assert tree.spent(("org",)) == {"tokens": 35}
    assert tree.held(("org",)) == {}
    assert tree.spent(("org", "a", "run")) == {}
    with pytest.raises(NotFound):
        tree.settle("1", {"tokens": 30})


def test_a_limit_below_what_is_used_stops_only_what_is_new() -> None:
    tree = BudgetTree(ManualClock())
    tree.reserve("1", ("org",), {"tokens": 50})
    tree.set_limits(("org",), [Limit("tokens", 10)])
    tree.settle("1", {"tokens": 50})
    assert refused(tree, "2", ("org",), tokens=1).refusal.used == 50
    tree.reserve("3", ("org",), {"calls": 1})


def test_misuse_is_refused() -> None:
    tree = BudgetTree(ManualClock())
    tree.reserve("1", ("org", "a"), {"tokens": 5})
    with pytest.raises(Conflict, match="org/a"):
        tree.reserve("1", ("org", "b"), {"tokens": 5})
    with pytest.raises(NotFound):
        tree.extend("2", {"tokens": 5})


def test_memory_is_bounded() -> None:
    tree = BudgetTree(ManualClock(), max_settled=100)
    for number in range(1_000):
        path = ("org", "agent", f"run{number}")
        tree.reserve(str(number), path, {"tokens": 1})
        tree.settle(str(number), {"tokens": 1})
        if number % 2:
            tree.close(path)
    assert len(tree._settled) <= 100
    assert tree.spent(("org",)) == {"tokens": 1_000}
    assert len(tree._accounts) == 2 + 500
    assert math.isinf(tree._accounts["org",].windows["life"].end)

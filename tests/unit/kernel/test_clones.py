"""Copies of one identity: whatever they do, at most one is the node at a time."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmagentos.kernel.clones import Seen, Verdict, judge


@pytest.mark.parametrize(
    ("seen", "place", "counter", "verdict"),
    [
        (Seen("a", 5, True), "a", 6, Verdict.ACCEPTED),
        (Seen("a", 5, False), "b", 6, Verdict.ACCEPTED),
        (Seen("a", 5, True), "b", 6, Verdict.ELSEWHERE),
        (Seen("a", 5, True), "a", 5, Verdict.SUPERSEDED),
        (Seen("a", 5, False), "b", 4, Verdict.SUPERSEDED),
        (Seen("", 0, True), "a", 1, Verdict.ACCEPTED),
    ],
)
def test_the_table(seen: Seen, place: str, counter: int, verdict: Verdict) -> None:
    assert judge(seen, place=place, counter=counter) is verdict


class Copies(RuleBasedStateMachine):
    """Machines with one identity; each may speak, be silent until it is away, and be copied again."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen("0", 0, True)
        self.counters = {"0": 0}
        self.node = "0"

    @rule(machine=st.integers(0, 5))
    def speaks(self, machine: int) -> None:
        place = sorted(self.counters)[machine % len(self.counters)]
        self.counters[place] += 1
        verdict = judge(self.seen, place=place, counter=self.counters[place])
        if verdict is Verdict.ACCEPTED:
            assert place == self.node or not self.seen.there, "the node is replaced only when it is silent"
            self.node = place
            self.seen = Seen(place, self.counters[place], True)
        elif verdict is Verdict.SUPERSEDED:
            assert place != self.node, "the node itself is never superseded"

    @rule()
    def falls_silent(self) -> None:
        self.seen = Seen(self.seen.place, self.seen.counter, False)

    @rule(source=st.integers(0, 5))
    def is_copied(self, source: int) -> None:
        place = sorted(self.counters)[source % len(self.counters)]
        if len(self.counters) < 6:
            self.counters[str(len(self.counters))] = self.counters[place]

    @invariant()
    def numbers_only_grow(self) -> None:
        assert self.seen.counter <= max(self.counters.values())
        assert self.seen.place == self.node


TestCopies = Copies.TestCase
TestCopies.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

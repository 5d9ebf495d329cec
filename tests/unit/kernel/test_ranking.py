"""The lazy priority queue against plain sorting, while ranks grow behind its back and fall when told."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmagentos.kernel.ranking import Ranking

KEYS = st.sampled_from("abcdefgh")


class Ranks(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.values = dict.fromkeys("abcdefgh", 0)
        self.ranking: Ranking[str] = Ranking(lambda key: (self.values[key], key))
        self.inside: set[str] = set()

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.ranking.add(key)
        self.inside.add(key)

    @rule(key=KEYS)
    def discard(self, key: str) -> None:
        self.ranking.discard(key)
        self.inside.discard(key)

    @rule(key=KEYS, more=st.integers(0, 5))
    def grow(self, key: str, more: int) -> None:
        self.values[key] += more

    @rule(key=KEYS, less=st.integers(0, 5))
    def fall(self, key: str, less: int) -> None:
        self.values[key] -= less
        self.ranking.fallen(key)

    @invariant()
    def the_first_is_the_least(self) -> None:
        assert len(self.ranking) == len(self.inside)
        assert set(self.ranking) == self.inside
        if self.inside:
            assert self.ranking.first() == min(self.inside, key=lambda key: (self.values[key], key))


TestRanks = Ranks.TestCase
TestRanks.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


def test_memory_does_not_grow_with_use() -> None:
    values = dict.fromkeys(range(10), 0)
    ranking: Ranking[int] = Ranking(lambda key: (values[key],))
    for key in values:
        ranking.add(key)
    for step in range(10_000):
        values[step % 10] -= 1
        ranking.fallen(step % 10)
    assert len(ranking._heap) <= 2 * 10 + 65

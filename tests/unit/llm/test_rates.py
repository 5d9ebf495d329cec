"""Tokens a second, over the last minute."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmagentos.llm.rates import WINDOW_S, Rate


def test_a_steady_flow() -> None:
    rate = Rate()
    assert rate.per_second(0.0) == 0.0
    for second in range(300):
        rate.add(5, float(second))
    assert rate.per_second(299.5) == 5 * WINDOW_S / (299.5 - 240)
    assert rate.per_second(1000.0) == 0.0


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(-3, 50)), max_size=50))
def test_it_holds_what_came_in_the_last_minute_and_no_more(steps: list[tuple[float, int]]) -> None:
    rate, now, all_of_them = Rate(), 0.0, list[tuple[float, int]]()
    for wait, amount in steps:
        now += wait
        rate.add(amount, now)
        all_of_them.append((now, amount))
    recent = [(int(at), amount) for at, amount in all_of_them if int(at) > now - WINDOW_S]
    span = max(1.0, min(float(WINDOW_S), now - recent[0][0])) if recent else 1.0
    assert rate.per_second(now) == sum(amount for _, amount in recent) / span

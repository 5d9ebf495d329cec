from __future__ import annotations

from llmagentos.core.clock import ManualClock, SystemClock
from llmagentos.core.ids import LENGTH, new_id


def test_ids_are_typable_and_differ() -> None:
    ids = {new_id() for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(len(i) == LENGTH and not set(i) & set("ilou") and i.islower() | i.isdigit() for i in ids)


def test_the_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock()
    wall, steady = clock.time(), clock.monotonic()
    clock.advance(5)
    assert (clock.time() - wall, clock.monotonic() - steady) == (5, 5)
    clock.wall -= 3600  # an operator sets the wall clock back
    assert clock.monotonic() - steady == 5


def test_the_system_clock_is_utc_seconds() -> None:
    assert SystemClock().time() > 1_700_000_000
    assert SystemClock().monotonic() <= SystemClock().monotonic()

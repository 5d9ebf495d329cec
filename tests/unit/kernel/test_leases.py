"""Leases: one live holder a key, tokens that only grow, and nothing that a wall clock could expire."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import Conflict
from llmagentos.kernel.leases import LeaseLost, LeaseTable

TTL = 10.0
keys = st.sampled_from(["a", "b"])
holders = st.sampled_from(["x", "y", "z"])


class Leases(RuleBasedStateMachine):
    """The table against a model: for each key the holder, the token and the end."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.table = LeaseTable(self.clock, TTL)
        self.live: dict[str, tuple[str, int, float]] = {}
        self.given: list[int] = []

    def now_live(self, key: str) -> tuple[str, int, float] | None:
        known = self.live.get(key)
        return known if known and self.clock.monotonic() < known[2] else None

    @rule(key=keys, holder=holders)
    def grant(self, key: str, holder: str) -> None:
        current = self.now_live(key)
        if current and current[0] != holder:
            with pytest.raises(Conflict):
                self.table.grant(key, holder)
            return
        lease = self.table.grant(key, holder)
        assert all(lease.token > earlier for earlier in self.given)
        self.given.append(lease.token)
        self.live[key] = (holder, lease.token, self.clock.monotonic() + TTL)

    @rule(key=keys, back=st.integers(0, 3))
    def renew(self, key: str, back: int) -> None:
        token = self.given[-1 - back] if len(self.given) > back else 0
        current = self.now_live(key)
        if current and current[1] == token:
            assert self.table.renew(key, token).expires == self.clock.monotonic() + TTL
            self.live[key] = (current[0], token, self.clock.monotonic() + TTL)
        else:
            with pytest.raises(LeaseLost):
                self.table.renew(key, token)

    @rule(key=keys, back=st.integers(0, 3))
    def release(self, key: str, back: int) -> None:
        token = self.given[-1 - back] if len(self.given) > back else 0
        known = self.live.get(key)
        assert self.table.release(key, token) == (known is not None and known[1] == token)
        if known is not None and known[1] == token:
            del self.live[key]

    @rule(seconds=st.floats(0, 15))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def collect_expired(self) -> None:
        over = {key for key, (_, _, end) in self.live.items() if self.clock.monotonic() >= end}
        assert {lease.key for lease in self.table.expired()} == over
        for key in over:
            del self.live[key]

    @rule(above=st.integers(0, 5))
    def storage_has_seen_more(self, above: int) -> None:
        highest = max(self.given, default=0) + above
        self.table.advance(highest)
        self.given.append(highest)

    @rule(holder=holders)
    def server_restarts(self, holder: str) -> None:
        """A new table takes up what storage remembers: each for one full term."""
        self.table = LeaseTable(self.clock, TTL)
        self.table.advance(max(self.given, default=0))
        for key, (by, token, _) in self.live.items():
            self.table.restore(key, by, token)
            self.live[key] = (by, token, self.clock.monotonic() + TTL)

    @invariant()
    def what_is_live_agrees(self) -> None:
        for key in ("a", "b"):
            lease, expected = self.table.live(key), self.now_live(key)
            assert (lease is None) == (expected is None)
            if lease and expected:
                assert (lease.holder, lease.token) == expected[:2]


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_holder_that_was_replaced_is_found_out() -> None:
    clock = ManualClock()
    table = LeaseTable(clock, TTL)
    old = table.grant("job", "one")
    clock.advance(TTL)
    new = table.grant("job", "two")
    assert new.token > old.token
    with pytest.raises(LeaseLost):
        table.check("job", old.token)
    table.check("job", new.token)


def test_a_wall_clock_that_jumps_expires_nothing() -> None:
    clock = ManualClock()
    table = LeaseTable(clock, TTL)
    lease = table.grant("job", "one")
    clock.wall += 86400 * 365
    assert table.live("job") == lease
    assert table.expired() == []

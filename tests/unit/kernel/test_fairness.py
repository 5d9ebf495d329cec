"""Virtual token counters: the published bound, lifting after idleness, and what is forgotten."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.kernel.calls import Capacity, Outcome, Submission
from llmagentos.kernel.fairness import VirtualTokens
from llmagentos.kernel.policy import POLICIES
from llmagentos.kernel.scheduling import PolicyScheduler


class Backlogged:
    """Tenants that always have calls waiting, on an engine that produces a token a slot and step."""

    def __init__(self, shapes: dict[str, tuple[int, int]], slots: int, seed: int, shares: dict[str, float]) -> None:
        self.scheduler = PolicyScheduler({"m": Capacity(slots, 10_000)}, POLICIES["vtc"])
        self.shapes = shapes
        self.shares = shares
        self.draw = random.Random(seed)
        self.served = dict.fromkeys(shapes, 0.0)
        self.running: dict[str, tuple[Submission, int]] = {}
        self.made = 0
        for tenant in shapes:
            for _ in range(slots + 1):
                self.ask(tenant)

    def ask(self, tenant: str) -> None:
        self.made += 1
        longest_in, _ = self.shapes[tenant]
        size = self.draw.randint(1, longest_in)
        share = self.shares.get(tenant, 1.0)
        call = Submission(str(self.made), "m", "me", tenant=tenant, tokens_in=size, share=share)
        self.scheduler.submit(call, 0.0)

    def step(self, now: float) -> None:
        for admission in self.scheduler.next(now):
            call = admission.call
            assert call.tenant is not None
            self.served[call.tenant] += call.tokens_in / call.share
            self.running[call.id] = (call, self.draw.randint(1, self.shapes[call.tenant][1]))
            self.ask(call.tenant)
        for call_id, (call, left) in list(self.running.items()):
            assert call.tenant is not None
            self.scheduler.produced(call_id, 1)
            self.served[call.tenant] += 2 / call.share
            self.running[call_id] = (call, left - 1)
            if left == 1:
                del self.running[call_id]
                self.scheduler.finish(call_id, now)


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 60)), min_size=2, max_size=4),
    slots=st.integers(1, 6),
    seed=st.integers(0, 1 << 16),
)
def test_service_of_backlogged_tenants_stays_within_the_bound(
    shapes: list[tuple[int, int]], slots: int, seed: int
) -> None:
    """|W_f - W_g| <= 2 max(w_in L_input, w_out M), M the tokens that fit in the running calls (theorem 4.4)."""
    engine = Backlogged({f"t{n}": shape for n, shape in enumerate(shapes)}, slots, seed, {})
    longest_in = max(shape[0] for shape in shapes)
    at_once = slots * max(longest_in + longest_out for longest_in, longest_out in shapes)
    bound = 2 * max(1.0 * longest_in, 2.0 * at_once)
    history = []
    for step in range(200):
        engine.step(float(step))
        history.append(dict(engine.served))
    for one in engine.served:
        for other in engine.served:
            gaps = [served[one] - served[other] for served in history]
            assert max(gaps) - min(gaps) <= bound


def test_service_follows_the_shares() -> None:
    engine = Backlogged({"gold": (50, 20), "tin": (50, 20)}, 4, 1, {"gold": 3.0})
    for step in range(3_000):
        engine.step(float(step))
    gold, tin = engine.served["gold"] * 3.0, engine.served["tin"]
    assert gold / tin == pytest.approx(3.0, rel=0.05)


def test_idling_saves_nothing_up() -> None:
    scheduler = PolicyScheduler({"m": Capacity(1, 100)}, POLICIES["vtc"])
    order = []
    for number in range(20):  # b is idle while a is served a lot
        scheduler.submit(Submission(f"a{number}", "m", "me", tenant="a", tokens_in=100), 0.0)
    for _ in range(10):
        (admission,) = scheduler.next(0.0)
        scheduler.finish(admission.call.id, 0.0, Outcome(100, 100))
    for number in range(5):
        scheduler.submit(Submission(f"b{number}", "m", "me", tenant="b", tokens_in=100), 0.0)
    for _ in range(6):
        (admission,) = scheduler.next(0.0)
        order.append(admission.call.tenant)
        scheduler.finish(admission.call.id, 0.0, Outcome(100, 100))
    assert sorted(order) == ["a", "a", "a", "b", "b", "b"]


def test_going_idle_for_a_moment_does_not_wipe_out_what_was_served() -> None:
    """A tenant that is ahead stays ahead when it comes back."""
    tenants: VirtualTokens[str] = VirtualTokens()
    for name in ("ahead", "behind"):
        tenants.backlogged(tenants.join(name, ""))
    ahead = tenants.get("ahead")
    assert ahead is not None
    tenants.charge(ahead, 1_000, 1.0)
    tenants.drained(ahead)
    tenants.leave(ahead)
    again = tenants.join("ahead", "")
    tenants.backlogged(again)
    assert again.counter == 1_000
    assert tenants.first().name == "behind"


def test_idle_tenants_are_forgotten_when_they_mean_nothing_and_when_they_are_many() -> None:
    tenants: VirtualTokens[str] = VirtualTokens(max_idle=5)
    waits = tenants.join("waits", "")
    tenants.backlogged(waits)
    for number in range(20):
        tenant = tenants.join(str(number), "")
        tenants.charge(tenant, number, 1.0)
        tenants.leave(tenant)
    assert len(tenants) == 1 + 5
    tenants.charge(waits, 1_000, 1.0)
    last = tenants.join("last", "")
    tenants.leave(last)
    assert len(tenants) == 1

"""Rollouts against every way in which hosts, gates and clocks may behave."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.kernel.rollout import ENDS, TRANSITIONS, Batch, Limit, Plan, Snapshot, decide, partition, tally

SIZES = st.lists(st.one_of(st.integers(1, 6).map(str), st.integers(0, 100).map(lambda n: f"{n}%")), min_size=1)
LIMITS = st.one_of(st.integers(0, 4).map(str), st.integers(0, 100).map(lambda n: f"{n}%"))


@given(st.integers(0, 60), SIZES)
def test_every_host_is_in_one_batch_and_batches_have_their_size(count, sizes):
    hosts = [f"n{i}" for i in range(count)]
    batches = partition(hosts, sizes)
    assert [host for batch in batches for host in batch] == hosts
    for number, batch in enumerate(batches):
        size = sizes[min(number, len(sizes) - 1)]
        most = max(1, int(count * float(size[:-1]) / 100) if size.endswith("%") else int(size))
        assert 0 < len(batch) <= most
        assert len(batch) == most or number == len(batches) - 1


def test_a_canary_a_quarter_and_the_rest():
    sizes = [len(batch) for batch in partition([f"n{i}" for i in range(20)], ["1", "25%", "100%"])]
    assert sizes == [1, 5, 14]


@pytest.mark.parametrize(
    ("limit", "failed", "released", "over"),
    [
        ("0", 0, 5, False),
        ("0", 1, 5, True),
        ("2", 2, 9, False),
        ("2", 3, 9, True),
        ("10%", 1, 10, False),
        ("10%", 1, 9, True),
        ("10%", 1, 1, True),
        ("0%", 0, 3, False),
        ("100%", 3, 3, False),
    ],
)
def test_how_much_may_fail(limit, failed, released, over):
    assert Limit.of(limit).exceeded(failed, released) == over


class Scene:
    """Carries plans out, as the server does, and checks what must hold after each."""

    def __init__(self, count, sizes, limit, gated, pause, rollback):
        hosts = [f"n{i}" for i in range(count)]
        batches = [Batch(i, "waiting", each) for i, each in enumerate(partition(hosts, sizes), 1)]
        states = dict.fromkeys(hosts, "held")
        undo = "waiting" if rollback else None
        self.seen = Snapshot(batches, states, Limit.of(limit), "unknown" if gated else "none", pause, undo)
        self.now = 0.0
        self.released: list[str] = []

    def settle(self):
        for _ in range(200):
            plan = decide(self.seen, self.now)
            if not plan:
                return
            self.carry_out(plan)
        raise AssertionError("never comes to rest")

    def carry_out(self, plan: Plan):
        hosts = dict(self.seen.hosts)
        batches = []
        for batch in self.seen.batches:
            if batch.number in plan.batches:
                step = plan.batches[batch.number]
                gate = "none" if self.seen.gate == "none" else "unknown"
                self.seen = dataclasses.replace(self.seen, gate=gate)
                batch = dataclasses.replace(batch, phase=TRANSITIONS[batch.phase, step], until=plan.until)
            batches.append(batch)
        for host in plan.release:
            assert hosts[host] == "held"
            hosts[host] = "queued"
            self.released.append(host)
        for host in plan.withdraw:
            assert hosts[host] in ("held", "queued")
            hosts[host] = "withdrawn"
        undo = TRANSITIONS[self.seen.rollback, plan.rollback] if plan.rollback else self.seen.rollback
        if plan.rollback == "release":
            assert set(plan.undo) == {host for host, state in hosts.items() if state in ("succeeded", "failed")}
        self.seen = dataclasses.replace(self.seen, batches=batches, hosts=hosts, rollback=undo)
        self.check()

    def check(self):
        at_work = {host for host, state in self.seen.hosts.items() if state in ("queued", "running")}
        homes = [batch for batch in self.seen.batches if at_work & set(batch.hosts)]
        assert len(homes) <= 1, "never more than one batch at once"
        assert self.released == [host for batch in self.seen.batches for host in batch.hosts][: len(self.released)]
        open_ = [batch.phase for batch in self.seen.batches if batch.phase not in ("waiting", "skipped")]
        assert all(phase == "passed" for phase in open_[:-1]), "the next one only after the last one passed"

    def host_moves(self, choice, well):
        moving = [host for host, state in self.seen.hosts.items() if state in ("queued", "running")]
        if not moving:
            return
        host = moving[choice % len(moving)]
        hosts = dict(self.seen.hosts)
        hosts[host] = "running" if hosts[host] == "queued" else ("succeeded" if well else "failed")
        self.seen = dataclasses.replace(self.seen, hosts=hosts)

    def gate_answers(self, well):
        if any(batch.phase == "gating" for batch in self.seen.batches):
            self.seen = dataclasses.replace(self.seen, gate="passed" if well else "failed")


@given(
    st.integers(1, 12),
    SIZES,
    LIMITS,
    st.booleans(),
    st.sampled_from([0.0, 5.0]),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 11), st.integers(0, 9).map(lambda n: n > 0)), max_size=80),
)
def test_a_rollout_goes_by_batches_and_stops_at_its_limit(count, sizes, limit, gated, pause, rollback, moves):
    scene = Scene(count, sizes, limit, gated, pause, rollback)
    scene.settle()
    assert scene.released == list(scene.seen.batches[0].hosts), "the canary alone is first"
    for kind, choice, well in moves:
        before, phases = len(scene.released), [batch.phase for batch in scene.seen.batches]
        if kind == 0:
            scene.gate_answers(well)
        elif kind == 1:
            scene.now += 3.0
        else:
            scene.host_moves(choice, well)
        failed, released = tally(scene.seen)
        over = scene.seen.limit.exceeded(failed, released)
        scene.settle()
        if over or "failed" in phases:
            assert len(scene.released) == before, "nothing begins beyond the limit"
    for _ in range(400):  # whatever happened, everything comes to an end
        scene.host_moves(0, True)
        scene.gate_answers(True)
        scene.now += 3.0
        scene.settle()
    phases = [batch.phase for batch in scene.seen.batches]
    assert set(phases) <= ENDS
    assert not {"held", "queued", "running"} & set(scene.seen.hosts.values())
    stopped = "failed" in phases
    assert stopped or set(phases) == {"passed"}
    if rollback:
        begun = {"succeeded", "failed"} & set(scene.seen.hosts.values())
        assert scene.seen.rollback == ("running" if stopped and begun else "skipped")
    assert not decide(scene.seen, scene.now)

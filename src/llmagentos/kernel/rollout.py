"""Rolling batches: who may run next, whether it may go on, when it is stopped. A snapshot in, one step out.

Batches run one after the other; the first is the canary. Ask again after every step until there is
nothing to do: whoever carries the steps out keeps each in a transaction, so that a crash in between
only means to ask again.

    waiting ──release──▶ running ──▶ gating ──▶ pausing ──▶ passed
       │                    │           │
       └──skip──▶ skipped   └───────────┴──▶ failed

A rollback is a batch of its own behind the others: skipped when every batch passed, else released once
nothing runs any more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Phase = Literal["waiting", "running", "gating", "pausing", "passed", "failed", "skipped"]
Step = Literal["release", "gate", "pause", "pass", "fail", "skip"]
Host = Literal["held", "queued", "running", "succeeded", "failed", "withdrawn"]
"""Not let run yet or about to try again; let run; at work; ended well; ended otherwise; ended without a begin."""
Gate = Literal["none", "unknown", "passed", "failed"]

ENDS: frozenset[Phase] = frozenset({"passed", "failed", "skipped"})
_OPEN = frozenset({"held", "queued", "running"})

TRANSITIONS: MappingProxyType[tuple[Phase, Step], Phase] = MappingProxyType(
    {
        ("waiting", "release"): "running",
        ("waiting", "skip"): "skipped",
        ("running", "gate"): "gating",
        ("running", "pause"): "pausing",
        ("running", "pass"): "passed",
        ("running", "fail"): "failed",
        ("running", "skip"): "skipped",
        ("gating", "pause"): "pausing",
        ("gating", "pass"): "passed",
        ("gating", "fail"): "failed",
        ("gating", "skip"): "skipped",
        ("pausing", "pass"): "passed",
        ("pausing", "skip"): "skipped",
    }
)


@dataclass(frozen=True, slots=True)
class Limit:
    """How much may fail: `count` hosts, or `percent` of those that were let run."""

    count: int | None = None
    percent: float | None = None

    @classmethod
    def of(cls, text: str) -> Limit:
        """From `3` or `10%`."""
        return cls(percent=float(text[:-1])) if text.endswith("%") else cls(count=int(text))

    def exceeded(self, failed: int, released: int) -> bool:
        """Whether `failed` of `released` hosts are too many."""
        if self.count is not None:
            return failed > self.count
        return failed * 100 > (self.percent or 0.0) * released


def partition(hosts: Sequence[str], sizes: Sequence[str]) -> list[tuple[str, ...]]:
    """The batches of `hosts` by `sizes` (`1`, `25%` of all, at least one); the last size is repeated."""
    found: list[tuple[str, ...]] = []
    begin = 0
    while begin < len(hosts):
        size = sizes[min(len(found), len(sizes) - 1)]
        count = math.floor(len(hosts) * float(size[:-1]) / 100) if size.endswith("%") else int(size)
        found.append(tuple(hosts[begin : begin + max(1, count)]))
        begin += max(1, count)
    return found


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it stands; `until` is the end of its pause."""

    number: int
    phase: Phase
    hosts: tuple[str, ...]
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A rollout as it stands. `gate` is that of the batch that is gating; `rollback` is None without one."""

    batches: Sequence[Batch]
    hosts: Mapping[str, Host]
    limit: Limit
    gate: Gate = "none"
    pause_s: float = 0.0
    rollback: Phase | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now; empty when there is nothing to do until something changes."""

    batches: Mapping[int, Step] = field(default_factory=dict)
    release: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()
    """Hosts that shall not begin any more; those that run are left to end."""
    until: float | None = None
    """The end of the pause that begins."""
    rollback: Step | None = None
    undo: tuple[str, ...] = ()
    """Where the rollback runs."""
    message: str | None = None

    def __bool__(self) -> bool:
        return bool(self.batches or self.withdraw or self.rollback)


NOTHING = Plan()


def decide(seen: Snapshot, now: float) -> Plan:
    """The next step of the rollout `seen` at `now`."""
    if any(batch.phase in ("failed", "skipped") for batch in seen.batches):
        return _stopped(seen)
    current = next((batch for batch in seen.batches if batch.phase not in ENDS), None)
    if current is None:
        return Plan(rollback="skip") if seen.rollback == "waiting" else NOTHING
    if current.phase == "waiting":
        return Plan({current.number: "release"}, release=current.hosts)
    failed, released = tally(seen)
    if seen.limit.exceeded(failed, released):
        return Plan({current.number: "fail"}, message=f"{failed} of {released} nodes failed")
    if current.phase == "running":
        return NOTHING if any(seen.hosts[host] in _OPEN for host in current.hosts) else _ran(seen, current, now)
    if current.phase == "gating":
        if seen.gate == "failed":
            return Plan({current.number: "fail"}, message="its health gate failed")
        return _passed(seen, current, now) if seen.gate in ("passed", "none") else NOTHING
    return Plan({current.number: "pass"}) if now >= (current.until or 0.0) else NOTHING


def tally(seen: Snapshot) -> tuple[int, int]:
    """How many hosts failed, of how many that were let run."""
    hosts = [host for batch in seen.batches if batch.phase not in ("waiting", "skipped") for host in batch.hosts]
    return sum(seen.hosts[host] in ("failed", "withdrawn") for host in hosts), len(hosts)


def _ran(seen: Snapshot, current: Batch, now: float) -> Plan:
    if seen.gate != "none" and any(seen.hosts[host] == "succeeded" for host in current.hosts):
        return Plan({current.number: "gate"})
    return _passed(seen, current, now)


def _passed(seen: Snapshot, current: Batch, now: float) -> Plan:
    if seen.pause_s > 0 and current is not seen.batches[-1]:
        return Plan({current.number: "pause"}, until=now + seen.pause_s)
    return Plan({current.number: "pass"})


def _stopped(seen: Snapshot) -> Plan:
    later: dict[int, Step] = {batch.number: "skip" for batch in seen.batches if batch.phase not in ENDS}
    idle = tuple(host for host, state in seen.hosts.items() if state in ("held", "queued"))
    if later or idle:
        return Plan(later, withdraw=idle)
    if seen.rollback != "waiting" or "running" in seen.hosts.values():
        return NOTHING
    undo = tuple(host for host, state in seen.hosts.items() if state in ("succeeded", "failed"))
    return Plan(rollback="release" if undo else "skip", undo=undo)

"""Which call to a model runs next: pure decisions, the clock is a parameter.

`Scheduler` is what the gateway asks. `PolicyScheduler` keeps a bounded queue per model and admits up to
the model's slots in the order of a `Policy`: strict priorities, fairness between tenants, the run with
the least service, order of arrival. Calls whose deadline passes while they wait are dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from llmagentos.kernel.calls import (
    Admission,
    Capacity,
    Load,
    Outcome,
    Preemption,
    QueueFull,
    Reason,
    Running,
    Submission,
    Waiting,
)
from llmagentos.kernel.lanes import Lane
from llmagentos.kernel.policy import Policy

__all__ = ["Admission", "Capacity", "Load", "Outcome", "PolicyScheduler", "QueueFull"]
__all__ += ["Running", "Scheduler", "Submission", "Waiting"]

_MAX_HELD_RUNS = 100_000


class Scheduler(Protocol):
    """Decides on admission; every call is submitted once and ends in `finish`, `cancel` or `expire`."""

    def submit(self, call: Submission, now: float) -> None:
        """Let a call wait for its turn. Raises `QueueFull`."""
        ...

    def next(self, now: float) -> list[Admission]:
        """The calls that may run from now on, in order."""
        ...

    def produced(self, call_id: str, tokens: int) -> None:
        """A running call has produced so many more tokens."""
        ...

    def finish(self, call_id: str, now: float, outcome: Outcome | None = None) -> None:
        """An admitted call has ended, in whatever way."""
        ...

    def cancel(self, call_id: str) -> bool:
        """Take a waiting call out; False when it does not wait."""
        ...

    def expire(self, now: float) -> list[Submission]:
        """Take out the waiting calls whose deadline has passed."""
        ...

    def next_deadline(self) -> float | None:
        """The first moment at which time alone changes something: a deadline, or a limit per minute that eases."""
        ...

    def load(self, model: str) -> Load:
        """How busy `model` is."""
        ...


class PolicyScheduler:
    """Per model a queue in the order of `policy`. Raises `ValueError` on a call it does not know."""

    def __init__(self, models: Mapping[str, Capacity], policy: Policy) -> None:
        self.policy = policy
        self._lanes = {name: Lane(name, capacity, policy) for name, capacity in models.items()}
        self._lane_of: dict[str, Lane] = {}
        self._calls_of: dict[str, set[str]] = {}
        self._held: set[str] = set()
        self._now = 0.0

    def submit(self, call: Submission, now: float) -> None:
        if call.id in self._lane_of:
            raise ValueError(f"call {call.id!r} was submitted before")
        self._now = now
        lane = self._lanes[call.model]
        lane.submit(call, now, held=self._is_held(call))
        self._lane_of[call.id] = lane
        for run in _runs(call):
            self._calls_of.setdefault(run, set()).add(call.id)

    def next(self, now: float) -> list[Admission]:
        self._now = now
        return [admission for lane in self._lanes.values() for admission in lane.admit(now)]

    def produced(self, call_id: str, tokens: int) -> None:
        self._running(call_id).produced(call_id, tokens)

    def finish(self, call_id: str, now: float, outcome: Outcome | None = None) -> None:
        self._now = now
        lane = self._running(call_id)
        call = lane.running[call_id].call
        lane.finish(call_id, outcome, now)
        self._gone(call)

    def cancel(self, call_id: str) -> bool:
        lane = self._lane_of.get(call_id)
        if lane is None or call_id not in lane.waiting:
            return False
        self._gone(lane.withdraw(call_id, self._now))
        return True

    def cancel_run(self, run_id: str) -> list[str]:
        """Take out the waiting calls of a run and of its sub-runs; their ids."""
        return [call_id for call_id in sorted(self._calls_of.get(run_id, ())) if self.cancel(call_id)]

    def cancel_model(self, model: str) -> list[Submission]:
        """Take out all calls that wait for a model, in the order of arrival: its breaker has opened."""
        calls = [entry.call for entry in self._lanes[model].waiting.values()]
        for call in calls:
            self.cancel(call.id)
        return calls

    def forget(self, run_id: str) -> None:
        """The run has ended: nothing about it needs to be remembered."""
        self._held.discard(run_id)
        for lane in self._lanes.values():
            lane.programs.forget(run_id)

    def hold(self, run_id: str, now: float) -> None:
        """Pause a run: no call of it or its sub-runs starts. Raises `ValueError` when too many runs are paused."""
        if len(self._held) >= _MAX_HELD_RUNS:
            raise ValueError(f"{len(self._held)} runs are paused")
        self._now = now
        self._held.add(run_id)
        for call_id, lane in self._waiting_of(run_id):
            lane.hold(call_id, now)

    def release(self, run_id: str, now: float) -> None:
        """Resume a run: its calls wait in their old places."""
        self._now = now
        self._held.discard(run_id)
        for call_id, lane in self._waiting_of(run_id):
            if not self._is_held(lane.waiting[call_id].call):
                lane.release(call_id, now)

    def renice(self, run_id: str, priority: int, now: float) -> None:
        """Change the priority of a run's waiting calls; what runs is not touched."""
        self._now = now
        for call_id, lane in self._waiting_of(run_id):
            lane.renice(replace(lane.waiting[call_id].call, priority=priority), now)

    def preemptions(self) -> list[Preemption]:
        """Running calls to interrupt for more urgent ones; answer with `suspend` when that was done."""
        return [found for lane in self._lanes.values() for found in lane.preemptions()]

    def suspend(self, call_id: str, now: float) -> None:
        """A running call was interrupted and waits again; what it produced is kept and charged once."""
        self._now = now
        lane = self._running(call_id)
        lane.suspend(call_id, now, held=self._is_held(lane.running[call_id].call))

    def learn(self, model: str, left: Mapping[str, float], now: float) -> None:
        """An answer's headers said how many `requests` and `tokens` are left in this minute."""
        self._now = now
        self._lanes[model].throughput.learn(left, now)

    def resize(self, model: str, slots: int) -> None:
        """The model has another number of slots, e.g. because a replica came or went."""
        lane = self._lanes[model]
        lane.capacity = replace(lane.capacity, slots=slots)

    def expire(self, now: float) -> list[Submission]:
        self._now = now
        late = [call for lane in self._lanes.values() for call in lane.expire(now)]
        for call in late:
            self._gone(call)
        return late

    def next_deadline(self) -> float | None:
        moments = [lane.next_deadline() for lane in self._lanes.values()]
        moments += [lane.ready_at(self._now) for lane in self._lanes.values()]
        return min((moment for moment in moments if moment is not None), default=None)

    def load(self, model: str) -> Load:
        lane = self._lanes[model]
        return Load(len(lane.running), len(lane.waiting))

    def slots(self, model: str) -> int:
        """How many calls may run at once: as configured, or as found so far."""
        return self._lanes[model].slots

    def waiting(self, model: str, now: float) -> list[Waiting]:
        """The calls that wait for a model in the order in which they would start, each with its reason."""
        lane = self._lanes[model]
        return [
            Waiting(entry.call, place, entry.since, lane.reason(entry, now))
            for place, entry in enumerate(lane.order(), 1)
        ]

    def reasons(self, model: str, now: float) -> Counter[Reason]:
        """How many calls wait for a model, by reason."""
        lane = self._lanes[model]
        return Counter(lane.reason(entry, now) for entry in lane.waiting.values())

    def running(self, model: str) -> list[Running]:
        """The calls that have a slot of a model, the oldest first."""
        entries = self._lanes[model].running.values()
        return [Running(entry.call, entry.begun, entry.produced) for entry in entries]

    def explain(self, call_id: str, now: float) -> Waiting | None:
        """Place and reason of one call; None when it does not wait."""
        lane = self._lane_of.get(call_id)
        if lane is None or call_id not in lane.waiting:
            return None
        return next(found for found in self.waiting(lane.name, now) if found.call.id == call_id)

    def _is_held(self, call: Submission) -> bool:
        return not self._held.isdisjoint(_runs(call))

    def _running(self, call_id: str) -> Lane:
        lane = self._lane_of.get(call_id)
        if lane is None or call_id not in lane.running:
            raise ValueError(f"call {call_id!r} does not run")
        return lane

    def _waiting_of(self, run_id: str) -> list[tuple[str, Lane]]:
        found = ((call_id, self._lane_of[call_id]) for call_id in sorted(self._calls_of.get(run_id, ())))
        return [(call_id, lane) for call_id, lane in found if call_id in lane.waiting]

    def _gone(self, call: Submission) -> None:
        del self._lane_of[call.id]
        for run in _runs(call):
            calls = self._calls_of[run]
            calls.discard(call.id)
            if not calls:
                del self._calls_of[run]


def _runs(call: Submission) -> set[str]:
    return {run for run in (call.run_id, call.program) if run is not None}

"""Which call to a model runs next: pure decisions, the clock is a parameter.

`Scheduler` is what the gateway asks. `FifoScheduler` admits in the order of arrival, per model up to
its number of slots, from a bounded queue; calls whose deadline passes while they wait are dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from llmagentos.core.errors import TooManyRequests

_FIRST_GUESS_S = 2.0
_SMOOTHING = 0.2
_RETRY_MIN_S, _RETRY_MAX_S = 1.0, 60.0


class QueueFull(TooManyRequests):
    """As many calls wait for the model as may."""

    code = "queue_full"


@dataclass(frozen=True, slots=True)
class Submission:
    """A call that asks for a slot. `deadline` is monotonic seconds; a scheduler may weigh the rest."""

    id: str
    model: str
    caller: str
    run_id: str | None = None
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """A call that may run now, after `waited` seconds."""

    call: Submission
    waited: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a model takes: calls at once, and calls that may wait."""

    slots: int
    queue: int


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a model is."""

    running: int
    waiting: int


class Scheduler(Protocol):
    """Decides on admission; every call is submitted once and ends in `finish`, `cancel` or `expire`."""

    def submit(self, call: Submission, now: float) -> None:
        """Let a call wait for its turn. Raises `QueueFull`."""
        ...

    def next(self, now: float) -> list[Admission]:
        """The calls that may run from now on, in order."""
        ...

    def finish(self, call_id: str, now: float) -> None:
        """An admitted call has ended, in whatever way."""
        ...

    def cancel(self, call_id: str) -> bool:
        """Take a waiting call out; False when it does not wait."""
        ...

    def expire(self, now: float) -> list[Submission]:
        """Take out the waiting calls whose deadline has passed."""
        ...

    def next_deadline(self) -> float | None:
        """The first deadline of a waiting call."""
        ...

    def load(self, model: str) -> Load:
        """How busy `model` is."""
        ...


@dataclass(slots=True)
class _Lane:
    capacity: Capacity
    waiting: OrderedDict[str, tuple[Submission, float]] = field(default_factory=OrderedDict)
    running: dict[str, float] = field(default_factory=dict)
    typical_s: float = _FIRST_GUESS_S

    def free(self) -> int:
        return self.capacity.slots - len(self.running)

    def finished(self, call_id: str, now: float) -> bool:
        begun = self.running.pop(call_id, None)
        if begun is None:
            return False
        self.typical_s += _SMOOTHING * (now - begun - self.typical_s)
        return True

    def retry_after(self) -> float:
        """When a place in the queue should be free: one call ends every `typical_s / slots`."""
        return min(_RETRY_MAX_S, max(_RETRY_MIN_S, self.typical_s / self.capacity.slots))


class FifoScheduler:
    """First come, first served, per model."""

    def __init__(self, models: Mapping[str, Capacity]) -> None:
        self._lanes = {name: _Lane(capacity) for name, capacity in models.items()}

    def submit(self, call: Submission, now: float) -> None:
        lane = self._lanes[call.model]
        if call.id in lane.waiting or call.id in lane.running:
            raise ValueError(f"call {call.id!r} was submitted before")
        # Who can run at once does not count as waiting: a queue of one still lets every slot be used.
        if len(lane.waiting) >= lane.capacity.queue + max(0, lane.free()):
            raise QueueFull(
                f"{len(lane.waiting)} calls already wait for the model {call.model!r}",
                retry_after=lane.retry_after(),
                hint="try again later; models.<name>.queue and .slots in llmagentos.yaml set the limits",
            )
        lane.waiting[call.id] = (call, now)

    def next(self, now: float) -> list[Admission]:
        admitted = []
        for lane in self._lanes.values():
            while lane.free() > 0 and lane.waiting:
                _, (call, since) = lane.waiting.popitem(last=False)
                lane.running[call.id] = now
                admitted.append(Admission(call, now - since))
        return admitted

    def finish(self, call_id: str, now: float) -> None:
        if not any(lane.finished(call_id, now) for lane in self._lanes.values()):
            raise ValueError(f"call {call_id!r} does not run")

    def cancel(self, call_id: str) -> bool:
        return any(lane.waiting.pop(call_id, None) is not None for lane in self._lanes.values())

    def expire(self, now: float) -> list[Submission]:
        late = [
            call
            for lane in self._lanes.values()
            for call, _ in lane.waiting.values()
            if call.deadline is not None and call.deadline <= now
        ]
        for call in late:
            self.cancel(call.id)
        return late

    def next_deadline(self) -> float | None:
        return min(
            (
                call.deadline
                for lane in self._lanes.values()
                for call, _ in lane.waiting.values()
                if call.deadline is not None
            ),
            default=None,
        )

    def load(self, model: str) -> Load:
        lane = self._lanes[model]
        return Load(len(lane.running), len(lane.waiting))

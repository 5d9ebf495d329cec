"""Policies that know the future, to compare with: what could be reached if lengths were told beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush

from llmagentos.kernel.calls import Admission, Outcome, Submission


class ShortestRemaining:
    """The call of the run with the least work left goes first. `work` is the seconds of each run, of each call."""

    def __init__(self, slots: int, runs: Mapping[str, float], calls: Mapping[str, float]) -> None:
        self._free = slots
        self._left = dict(runs)
        self._calls = calls
        self._queue: list[tuple[float, int, float, Submission]] = []
        self._running: dict[str, Submission] = {}
        self._arrived = 0

    def submit(self, call: Submission, now: float) -> None:
        """Let a call wait."""
        self._arrived += 1
        heappush(self._queue, (self._left[call.run_id or call.id], self._arrived, now, call))

    def next(self, now: float) -> list[Admission]:
        """The calls that may run from now on."""
        admitted = []
        while self._free > 0 and self._queue:
            left, number, since, call = heappop(self._queue)
            actual = self._left[call.run_id or call.id]
            if actual < left and self._queue and self._queue[0][0] < left:
                heappush(self._queue, (actual, number, since, call))  # calls of its run have ended meanwhile
                continue
            self._free -= 1
            self._running[call.id] = call
            admitted.append(Admission(call, now - since))
        return admitted

    def produced(self, call_id: str, tokens: int) -> None:
        """What is produced tells it nothing new."""

    def finish(self, call_id: str, now: float, outcome: Outcome | None = None) -> None:
        """A call has ended."""
        call = self._running.pop(call_id)
        self._left[call.run_id or call.id] -= self._calls[call_id]
        self._free += 1

"""A model of an engine: how long a call takes in one of its slots."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from llmagentos.kernel.simulator.trace import Call, Run


@dataclass(frozen=True, slots=True)
class EngineModel:
    """`slots` calls at once, each with its own prefill and decode rate in tokens a second.

    The last context of `cached_runs` runs is kept, so that what a run's next call repeats is not computed
    again; 0 keeps none.
    """

    slots: int = 16
    prefill: float = 4000.0
    decode: float = 50.0
    cached_runs: int = 0

    def seconds(self, call: Call, cached: int = 0) -> float:
        """Time that a call takes when `cached` tokens of its input are there already."""
        return (call.tokens_in - cached) / self.prefill + call.tokens_out / self.decode

    def alone(self, run: Run) -> float:
        """Time that a run takes on an idle engine without a cache."""
        total = 0.0
        for place, step in enumerate(run.steps):
            times = sorted((self.seconds(call) for call in step.calls), reverse=True)
            # A step wider than the engine cannot end before its work is done, nor before its longest call.
            total += max(times[0], sum(times) / self.slots)
            total += step.pause if place + 1 < len(run.steps) else 0.0
        return total


class PrefixCache:
    """Which runs' contexts an engine still has, the least recently used one dropped first."""

    def __init__(self, runs: int) -> None:
        self._most = runs
        self._contexts: OrderedDict[str, int] = OrderedDict()

    def hit(self, run_id: str, tokens_in: int) -> int:
        """Tokens of the input that need not be computed."""
        return min(self._contexts.get(run_id, 0), tokens_in)

    def keep(self, run_id: str, tokens: int) -> None:
        """A call of the run has ended with a context of so many tokens."""
        if self._most == 0:
            return
        self._contexts[run_id] = max(tokens, self._contexts.pop(run_id, 0))
        if len(self._contexts) > self._most:
            self._contexts.popitem(last=False)

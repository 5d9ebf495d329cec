"""Which nodes are there."""

from __future__ import annotations

from llmagentos.api.nodes import NodeState
from llmagentos.core.clock import Clock


class Presence:
    """Which nodes are there: decided on the monotonic clock, so that a wall clock that jumps makes none `away`.

    `away_s`: how long a node may be silent.
    """

    def __init__(self, clock: Clock, away_s: float) -> None:
        self.away_s = away_s
        self._clock = clock
        self._begin = clock.monotonic()
        self._begin_wall = clock.time()
        self._heard: dict[str, float] = {}

    def heard(self, name: str) -> None:
        """The node gave a sign of life now."""
        self._heard[name] = self._clock.monotonic()

    def restore(self, name: str, seen: float) -> None:
        """What storage remembers: a node that was there when the server stopped gets a full term to come back."""
        if self._begin_wall - seen < self.away_s:
            self._heard.setdefault(name, self._begin)

    def forget(self, name: str) -> None:
        """The node was removed."""
        self._heard.pop(name, None)

    def away(self, name: str) -> bool:
        """Whether the node was silent for too long."""
        heard = self._heard.get(name)
        return heard is None or self._clock.monotonic() - heard >= self.away_s

    def state(self, name: str) -> NodeState:
        """`ready` or `away`."""
        return "away" if self.away(name) else "ready"

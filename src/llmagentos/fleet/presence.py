"""Which nodes are there, whichever of the servers on one database they talk to."""

from __future__ import annotations

from collections.abc import Mapping

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
        self._seen: dict[str, float] = {}  # what storage says, as far as that is known here

    def heard(self, name: str, seen: float) -> None:
        """The node gave a sign of life now, which storage has as `seen`."""
        self._heard[name] = self._clock.monotonic()
        self._seen[name] = seen

    def restore(self, name: str, seen: float) -> None:
        """What storage remembers: a node that was there when the server stopped gets a full term to come back."""
        self._seen[name] = seen
        if self._begin_wall - seen < self.away_s:
            self._heard.setdefault(name, self._begin)

    def look(self, seen: Mapping[str, float]) -> None:
        """What storage says now: of what is news here, another server heard the node; what it lacks was removed."""
        for name, when in seen.items():
            if self._seen.get(name) != when:
                self.heard(name, when)
        for name in self._seen.keys() - seen.keys():
            self.forget(name)

    def forget(self, name: str) -> None:
        """The node was removed, or its identity ended."""
        self._heard.pop(name, None)
        self._seen.pop(name, None)

    def away(self, name: str) -> bool:
        """Whether the node was silent for too long."""
        heard = self._heard.get(name)
        return heard is None or self._clock.monotonic() - heard >= self.away_s

    def state(self, name: str) -> NodeState:
        """`ready` or `away`."""
        return "away" if self.away(name) else "ready"

"""Which of several equal peers takes the next call: power of two choices on outstanding calls.

Of two peers drawn at random the one with fewer outstanding calls is taken: close to the best
balance, without the herding of "least loaded" on stale knowledge (Mitzenmacher, "The Power of Two
Choices in Randomized Load Balancing", IEEE TPDS 2001). A peer that failed is suspect for a while,
longer each time, and is taken only when there is no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

FIRST_SUSPICION_S = 2.0
MOST_SUSPICION_S = 30.0


@dataclass(slots=True)
class Peer:
    """What a caller knows of one peer. `suspect_until` is on the monotonic clock."""

    key: str
    outstanding: int = 0
    failures: int = 0
    suspect_until: float = 0.0

    def failed(self, now: float) -> None:
        """It could not be reached, or was lost: suspect from `now` on."""
        self.suspect_until = now + min(MOST_SUSPICION_S, FIRST_SUSPICION_S * 2.0 ** min(self.failures, 10))
        self.failures += 1

    def answered(self) -> None:
        """It is alive after all."""
        if self.failures:
            self.failures = 0
            self.suspect_until = 0.0


def choose(peers: Sequence[Peer], now: float, draw: Callable[[int], int]) -> Peer:
    """The peer for the next call; `draw(n)` is a random number below n. `peers` must not be empty.

    When all are suspect it is the one whose suspicion ends first.
    """
    if len(peers) == 1:
        return peers[0]
    trusted = [peer for peer in peers if peer.suspect_until <= now]
    if not trusted:
        return min(peers, key=lambda peer: peer.suspect_until)
    if len(trusted) == 1:
        return trusted[0]
    first = draw(len(trusted))
    second = draw(len(trusted) - 1)
    one, other = trusted[first], trusted[second + (second >= first)]
    return one if one.outstanding <= other.outstanding else other

"""Two machines with one identity: which of them is the node.

A machine that was cloned or restored from a backup has the keys of another one. What tells them apart: each says
from which place it speaks (a digest of machine, its start, and state directory) and counts its assertions, in a
number that is kept on its disk and only grows.

    same place, higher number           it is the node
    other place, the node is silent     it was restarted, or moved: it is the node from now on
    other place, the node is there      a copy: refused as long as the node is there
    a number not above the highest      a copy of an earlier state, or an assertion heard again: refused

So of two copies at most one is the node, and as soon as the other one has spoken, the first is refused in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What becomes of an assertion."""

    ACCEPTED = "it is the node"
    ELSEWHERE = "the node is there, in another place"
    SUPERSEDED = "the node has gone further"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of the node: from where it last spoke, with which number, and whether it is there now."""

    place: str
    counter: int
    there: bool


def judge(seen: Seen, *, place: str, counter: int) -> Verdict:
    """Whether a machine with the node's identity that speaks from `place` is the node."""
    if counter <= seen.counter:
        return Verdict.SUPERSEDED
    if seen.there and seen.place and place != seen.place:
        return Verdict.ELSEWHERE
    return Verdict.ACCEPTED

"""What a job can be on a node, and what its nodes make of the whole: one table, and folds over it.

held ──release──▶ queued ──claim──▶ running ──end──▶ succeeded | failed | unreachable | interrupted | cancelled
 ▲ ▲                │ ▲                │ │ ▲
 │ └──────hold──────┘ │                │ cancel, expire      claim (again: a node agent that was restarted)
 │                    │                │ ▼
 └────────retry───────┼────────────────┘ cancelling ──end──▶ (the same ends)
                      ╰──cancel──▶ cancelled, expire ──▶ failed (both from held as well)

Held is what its job may not begin yet (approval, window, lock, batch) or what waits for its next attempt.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Literal, cast, get_args

from llmagentos.api.jobs import HostEnd, HostState, JobState
from llmagentos.core.errors import Conflict

Change = Literal["release", "hold", "claim", "cancel", "expire", "retry", "remove"] | HostEnd
"""What can happen: the job lets it run or takes that back, a node takes it up, somebody cancels, its time is over,
an attempt ended and another one follows, the node is removed, or it ends."""

ENDS: frozenset[str] = frozenset(get_args(HostEnd))
WORKING: frozenset[str] = frozenset({"running", "cancelling"})

TRANSITIONS: MappingProxyType[tuple[HostState, str], HostState] = MappingProxyType(
    {
        ("held", "release"): "queued",
        ("held", "cancel"): "cancelled",
        ("held", "expire"): "failed",
        ("held", "remove"): "cancelled",
        ("queued", "hold"): "held",
        ("queued", "claim"): "running",
        ("queued", "cancel"): "cancelled",
        ("queued", "expire"): "failed",
        ("queued", "remove"): "cancelled",
        ("running", "claim"): "running",
        ("running", "cancel"): "cancelling",
        ("running", "expire"): "cancelling",
        ("running", "retry"): "held",
        ("running", "remove"): "interrupted",
        ("cancelling", "claim"): "cancelling",
        ("cancelling", "cancel"): "cancelling",
        ("cancelling", "expire"): "cancelling",
        ("cancelling", "remove"): "interrupted",
        **{(cast(HostState, state), end): cast(HostState, end) for state in sorted(WORKING) for end in sorted(ENDS)},
    }
)


class WrongState(Conflict):
    """The job on this node is in a state that does not allow this."""

    code = "job_state"


def step(state: HostState, change: Change) -> HostState:
    """The state after `change`. Raises `WrongState` when it cannot happen in `state`."""
    after = TRANSITIONS.get((state, change))
    if after is None:
        raise WrongState(f"a job that is {state} on a node cannot be changed by {change!r}", state=state)
    return after


def overall(states: Iterable[HostState]) -> JobState:
    """The job's state from those of its nodes."""
    found = set(states)
    if found <= {"held"}:
        return "waiting"
    if found <= {"held", "queued"}:
        return "queued"
    if found - ENDS:
        return "running"
    if found & {"failed", "unreachable", "interrupted"}:
        return "failed"
    return "cancelled" if "cancelled" in found else "succeeded"


def exit_code(states: Iterable[HostState]) -> int | None:
    """As ansible-playbook's: 4 with an unreachable host, 2 with a failed one, else 0; 1 when cancelled.

    None before the end.
    """
    found = set(states)
    if found - ENDS:
        return None
    if "unreachable" in found:
        return 4
    if found & {"failed", "interrupted"}:
        return 2
    return 1 if "cancelled" in found else 0

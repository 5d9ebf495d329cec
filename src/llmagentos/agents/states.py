"""The states of a run and what moves it from one to the other: the whole table, once.

created ──> queued ──claimed──> running ──answered──> succeeded
              │                 │  ↺ claimed, model_*, tool_*
              │                 ├──failed──> failed
              └──killed─────────┴──killed──> killed
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from llmagentos.api.runs import RunState
from llmagentos.core.errors import Conflict


class RunEnded(Conflict):
    """The run is over: nothing can be added to its log."""

    code = "run_ended"


class InvalidTransition(Conflict):
    """The event cannot follow on what the log already holds."""

    code = "invalid_transition"


class Transition(NamedTuple):
    """From which states an event may come, and the state after it."""

    sources: frozenset[RunState | None]
    target: RunState


def _from(*sources: RunState | None, to: RunState) -> Transition:
    return Transition(frozenset(sources), to)


_QUEUED, _RUNNING = RunState.QUEUED, RunState.RUNNING

TRANSITIONS: Mapping[str, Transition] = MappingProxyType(
    {
        "created": _from(None, to=_QUEUED),
        "claimed": _from(_QUEUED, _RUNNING, to=_RUNNING),
        "model_called": _from(_RUNNING, to=_RUNNING),
        "model_replied": _from(_RUNNING, to=_RUNNING),
        "tool_called": _from(_RUNNING, to=_RUNNING),
        "tool_answered": _from(_RUNNING, to=_RUNNING),
        "answered": _from(_RUNNING, to=RunState.SUCCEEDED),
        "failed": _from(_RUNNING, to=RunState.FAILED),
        "killed": _from(_QUEUED, _RUNNING, to=RunState.KILLED),
    }
)


def after(state: RunState | None, event: str) -> RunState:
    """The state after `event`. Raises `RunEnded` or `InvalidTransition`."""
    transition = TRANSITIONS[event]
    if state in transition.sources:
        return transition.target
    if state is not None and state.ended:
        raise RunEnded(f"the run has already {'been killed' if state is RunState.KILLED else state.value}")
    raise InvalidTransition(f"{event} cannot happen while the run is {state.value if state else 'not yet created'}")

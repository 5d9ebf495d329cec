"""The states of a run and what moves it from one to the other: the whole table, once.

created ──> queued ──claimed──> running ──answered──> succeeded
             │ ↑ ↑              │ ↑ │ ↺ claimed, model_*, tool_*
             │ │ │              │ │ │
             │ │ │              │ │ └─approval_requested─> waiting_approval ─┐ ↺ approved or denied, but not all yet
             │ │ └──approved, denied: every question is answered─────────────┘
             │ │                │ │
           paused, resumed    paused, resumed (and so from and to waiting_approval)
             │ │                │ │
             ↓ │                ↓ │
            (      p a u s e d      ) ──answered──> succeeded
                   ↺ model_replied, model_used, tool_answered: the call that was under way

failed comes from running; exited (a program that ended badly) and killed from all that have not ended.
A run that is resumed is again what it was before. reniced changes no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from llmagentos.api.runs import RunState
from llmagentos.core.errors import Conflict


class RunEnded(Conflict):
    """The run is over: nothing can be added to its log."""

    code = "run_ended"


class RunPaused(Conflict):
    """The run is paused: it starts nothing."""

    code = "run_paused"


class InvalidTransition(Conflict):
    """The event cannot follow on what the log already holds."""

    code = "invalid_transition"


class Then(Enum):
    """Targets that depend on the run."""

    SAME = "same"
    """The state that it is in."""
    BEFORE = "before"
    """The state that it was in when it was paused."""
    ASKED = "asked"
    """Queued for its host again once no question is open, else the state that it is in."""


class Transition(NamedTuple):
    """From which states an event may come, and the state after it."""

    sources: frozenset[RunState | None]
    target: RunState | Then


def _from(*sources: RunState | None, to: RunState | Then) -> Transition:
    return Transition(frozenset(sources), to)


_QUEUED, _RUNNING, _PAUSED, _WAITING = RunState.QUEUED, RunState.RUNNING, RunState.PAUSED, RunState.WAITING
ACTIVE = (_QUEUED, _RUNNING, _PAUSED, _WAITING)
"""The states that something can follow on."""

TRANSITIONS: Mapping[str, Transition] = MappingProxyType(
    {
        "created": _from(None, to=_QUEUED),
        "claimed": _from(_QUEUED, _RUNNING, to=_RUNNING),
        "model_called": _from(_RUNNING, to=_RUNNING),
        "model_replied": _from(_RUNNING, _PAUSED, to=Then.SAME),
        "model_used": _from(_RUNNING, _PAUSED, to=Then.SAME),
        "tool_called": _from(_RUNNING, to=_RUNNING),
        "tool_answered": _from(_RUNNING, _PAUSED, to=Then.SAME),
        "tool_refused": _from(_RUNNING, to=_RUNNING),
        "approval_requested": _from(_RUNNING, _WAITING, to=_WAITING),
        "approval_notified": _from(_WAITING, _PAUSED, to=Then.SAME),
        "approved": _from(_WAITING, to=Then.ASKED),
        "denied": _from(_WAITING, to=Then.ASKED),
        "answered": _from(_RUNNING, _PAUSED, to=RunState.SUCCEEDED),
        "failed": _from(_RUNNING, to=RunState.FAILED),
        "exited": _from(*ACTIVE, to=RunState.FAILED),
        "killed": _from(*ACTIVE, to=RunState.KILLED),
        "paused": _from(_QUEUED, _RUNNING, _WAITING, to=_PAUSED),
        "resumed": _from(_PAUSED, to=Then.BEFORE),
        "reniced": _from(*ACTIVE, to=Then.SAME),
    }
)


def after(state: RunState | None, event: str, *, before_pause: RunState | None = None, questions: int = 0) -> RunState:
    """The state after `event`; `questions` are open then. Raises `RunEnded`, `RunPaused` or `InvalidTransition`."""
    transition = TRANSITIONS[event]
    if state in transition.sources:
        match transition.target:
            case RunState():
                return transition.target
            case Then.BEFORE:
                target = before_pause
            case Then.ASKED if not questions:
                target = _QUEUED
            case _:
                target = state
        assert target is not None, event
        return target
    if state is not None and state.ended:
        raise RunEnded(f"the run has already {'been killed' if state is RunState.KILLED else state.value}")
    if state is RunState.PAUSED:
        raise RunPaused(f"{event} cannot happen while the run is paused", hint="`llmctl resume` lets it go on")
    raise InvalidTransition(f"{event} cannot happen while the run is {state.value if state else 'not yet created'}")

"""A call to a model as the scheduler sees it: what asks, what it is given, what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmagentos.core.errors import InvalidInput, TooManyRequests, nearest

# Named priorities are points on the scale of nice values, -20 (first) to 19 (last).
PRIORITIES = {"realtime": -15, "interactive": 0, "batch": 15}

Reason = Literal["slots", "loading", "rate", "backoff", "held", "preempted"]
"""Why a call waits: no slot is free, the model is not in memory yet (it has no slots), a limit per minute is reached,
the endpoint asked to wait, its run is paused, or it was running and gave its slot to a more urgent call."""


class QueueFull(TooManyRequests):
    """As many calls wait for the model as may."""

    code = "queue_full"


def priority_of(text: str) -> int:
    """The nice value that `text` names: `realtime`, `interactive`, `batch`, or a number. Raises `InvalidInput`."""
    if text in PRIORITIES:
        return PRIORITIES[text]
    try:
        value = int(text)
    except ValueError:
        value = 20
    if not -20 <= value <= 19:
        close = nearest(text, PRIORITIES)
        hint = f"did you mean {close!r}?" if close else f"{', '.join(PRIORITIES)}, or -20 (first) to 19 (last)"
        raise InvalidInput(f"there is no priority {text!r}", hint=hint)
    return value


@dataclass(frozen=True, slots=True)
class Submission:
    """A call that asks for a slot. A policy weighs what it knows; FIFO looks at nothing but the order."""

    id: str
    model: str
    caller: str
    run_id: str | None = None
    deadline: float | None = None
    """Monotonic seconds after which it is of no use to start."""
    tenant: str | None = None
    """Whose share of the model it uses; the caller's own when None."""
    share: float = 1.0
    """The tenant's weight against other tenants."""
    priority: int = 0
    """Nice value: -20 goes before all others, 19 after them."""
    program: str | None = None
    """The root run whose service counts; the run when None, the call alone when it has no run."""
    tokens_in: int = 0
    tokens_out: int = 0
    """Expected sizes. The input is charged when the call starts, the output as it is produced."""
    interruptible: bool = True
    """It can be continued after it was suspended, on a model that is preemptive."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A call that may run now, after `waited` seconds."""

    call: Submission
    waited: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known when a call ends; None where the engine did not say."""

    tokens_in: int | None = None
    tokens_out: int | None = None
    ttft_s: float | None = None
    """Seconds from the start of the call to its first token."""
    overloaded: bool = False
    """The engine refused for lack of capacity (HTTP 429 or 503)."""
    retry_after: float | None = None
    """Seconds after which the engine wants to be asked again."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a model takes: calls at once, calls that may wait, and limits per minute."""

    slots: int
    queue: int
    adaptive: bool = False
    """Find the number of calls the endpoint bears, with `slots` as the most."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    preemptive: bool = False
    """A running call may be suspended for a more urgent one and continued without losing its work."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a model is."""

    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued call: its place (1 is next, if nothing else came), since when it waits, and why."""

    call: Submission
    position: int
    since: float
    reason: Reason


@dataclass(frozen=True, slots=True)
class Running:
    """A call that has a slot since `begun`, and how many tokens it has produced."""

    call: Submission
    begun: float
    produced: int


@dataclass(frozen=True, slots=True)
class Preemption:
    """`victim` should be suspended so that `urgent` can start."""

    victim: str
    urgent: str

"""What travels along a chain of calls: the deadline, the run it serves, the trace, and who is calling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from llmagentos.security.identity import Identity

TIMEOUT_HEADER = "X-LLMAgentOS-Timeout"
"""Seconds that are left, as a decimal number: relative, because clocks of machines differ."""
RUN_HEADER = "X-LLMAgentOS-Run"
REFUSED_HEADER = "X-LLMAgentOS-Refused"
"""On an answer: no method was begun, so the call may safely go to another instance."""
TRACE_HEADER = "traceparent"


@dataclass(slots=True)
class CallContext:
    """The call that is being answered. `deadline` is on the monotonic clock of this process."""

    deadline: float | None = None
    run_id: str | None = None
    traceparent: str | None = None
    caller: Identity | None = None


_CURRENT: ContextVar[CallContext | None] = ContextVar("llmagentos_call", default=None)


def current() -> CallContext | None:
    """The call that this task or thread is answering; None outside of one."""
    return _CURRENT.get()


def enter(context: CallContext) -> None:
    """Answer `context`'s call in the rest of this task (which has its own copy of the context)."""
    _CURRENT.set(context)


@contextmanager
def serving_run(run_id: str) -> Iterator[None]:
    """Calls made inside the block are made for the run `run_id`."""
    token = _CURRENT.set(replace(_CURRENT.get() or CallContext(), run_id=run_id))
    try:
        yield
    finally:
        _CURRENT.reset(token)

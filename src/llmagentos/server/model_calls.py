"""What a request's headers say of a call to a model, and answers as streams of server-sent events."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple, TypeVar, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from llmagentos.api.llm import PRIORITY_HEADER, PURPOSE_HEADER, RUN_HEADER, TIMEOUT_HEADER, Purpose
from llmagentos.core.errors import Forbidden, InvalidInput
from llmagentos.kernel.calls import priority_of
from llmagentos.llm.gateway import TIMEOUT_S
from llmagentos.security.identity import Identity, Kind, Permission
from llmagentos.server.connected import while_connected
from llmagentos.server.endpoint import Call

T = TypeVar("T")

ActsFor = Callable[[Identity, str], Awaitable[None]]
"""Raises `Forbidden`, `NotFound` or `Conflict` when an identity may not call models for a run."""

DONE = b"data: [DONE]\n\n"
_MAX_RUN_ID = 64


class Given(NamedTuple):
    """What the headers say of a call; `timeout` in seconds."""

    run_id: str | None
    purpose: Purpose | None
    timeout: float
    priority: int | None


async def given(call: Call, acts_for: ActsFor) -> Given:
    """Raises `InvalidInput`, or what `acts_for` does."""
    found = _headers(call)
    if found.run_id is not None:
        await acts_for(call.identity, found.run_id)
    return found


class EventStream(StreamingResponse):
    """Server-sent events whose source is closed as soon as they end or the client hangs up."""

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(frames, media_type="text/event-stream", headers=headers)
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._frames):
            try:
                await while_connected(Request(scope, receive), self.stream_response(send))
            except ClientDisconnect:
                return


async def first_of(items: AsyncGenerator[T, None]) -> T:
    """The first item, which decides on the status: every refusal comes before it."""
    try:
        return await anext(items)
    except BaseException:
        await items.aclose()
        raise


def _headers(call: Call) -> Given:
    headers = call.request.headers
    run_id, purpose = headers.get(RUN_HEADER), headers.get(PURPOSE_HEADER)
    if call.identity.kind is Kind.RUN:  # a program is its run, and no other one
        if run_id not in (None, call.identity.subject):
            raise Forbidden(f"{call.identity} may not call models for the run {run_id[:_MAX_RUN_ID]!r}")
        run_id = call.identity.subject
    elif run_id is not None and not call.identity.may(Permission.RUNS_EXECUTE):
        raise Forbidden(f"{call.identity} may not call models for a run: it needs {Permission.RUNS_EXECUTE.value}")
    if run_id is not None and not 0 < len(run_id) <= _MAX_RUN_ID:
        raise InvalidInput(f"{RUN_HEADER} must be a run's id, not {run_id[:_MAX_RUN_ID]!r}")
    if purpose not in (None, "answer", "tool"):
        raise InvalidInput(f"{PURPOSE_HEADER} must be answer or tool, not {purpose!r}")
    timeout, priority = _seconds_left(headers.get(TIMEOUT_HEADER)), _priority(call, headers.get(PRIORITY_HEADER))
    return Given(run_id, cast("Purpose | None", purpose), timeout, priority)


def _priority(call: Call, text: str | None) -> int | None:
    """As with nice(2), everybody may be nicer than usual, but only who steers runs may go before others."""
    if text is None:
        return None
    priority = priority_of(text)
    if priority < 0 and not call.identity.may(Permission.RUNS_WRITE):
        raise Forbidden(
            f"{call.identity} may not call models with priority {text}, which goes before others",
            hint=f"leave {PRIORITY_HEADER} out, or have an operator `llmctl nice` the run",
        )
    return priority


def _seconds_left(text: str | None) -> float:
    if text is None:
        return TIMEOUT_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidInput(f"{TIMEOUT_HEADER} must be seconds, not {text!r}")
    return min(seconds, TIMEOUT_S)

"""A run is its log: the state of a run as a fold over its events.

Pure. The same fold serves the host that carries a run on, the summary in lists, and whoever resumes a
run after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec.structs import replace

from llmagentos.agents import states
from llmagentos.agents.states import InvalidTransition
from llmagentos.api.runs import (
    Answered,
    ApprovalNotified,
    ApprovalRequested,
    Approved,
    Claimed,
    Created,
    Data,
    Denied,
    Exited,
    Failed,
    Killed,
    ModelCalled,
    ModelReplied,
    ModelUsed,
    Paused,
    Purpose,
    Reniced,
    Resumed,
    Run,
    RunEvent,
    RunState,
    RunSummary,
    ToolAnswered,
    ToolCalled,
    ToolRefused,
    ToolRequest,
    Turn,
)

SHOWN_INPUT = 200
SUMMED_UP = "Sum up what we have said so far."
"""Stands before the summary of a session's older turns."""
CONTROL = (Paused, Resumed, Reniced, ApprovalNotified, Approved, Denied)
"""Said by people about the run: no work of its host, and possible between any two events of it."""
WITNESSED = (*CONTROL, ModelUsed)
"""What the server adds beside the host: the host's own events may follow on it without knowing it."""


class ModelTurn(msgspec.Struct, frozen=True):
    """A finished model call."""

    purpose: Purpose
    text: str
    cut: bool
    calls: tuple[ToolRequest, ...] = ()


class ToolTurn(msgspec.Struct, frozen=True):
    """A finished tool call, or one that was not made (then `error` says why)."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    result: Any
    error: str | None
    made: bool = True


class Question(msgspec.Struct, frozen=True):
    """A call that waits for a person's answer, since `asked` (seconds since the epoch, UTC)."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    asked: float
    timeout: float | None
    notified: bool = False


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's events add up to."""

    seq: int = 0
    state: RunState | None = None
    created: Created | None = None
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    turns: tuple[ModelTurn | ToolTurn, ...] = ()
    open_model: ModelCalled | None = None
    """A model call without its reply."""
    open_tools: tuple[ToolCalled, ...] = ()
    """Tool calls without their answers."""
    questions: tuple[Question, ...] = ()
    """Tool calls that wait for a person's answer."""
    agreed: frozenset[str] = frozenset()
    """Ids of calls that a person agreed to."""
    by_model: tuple[tuple[str, int, int], ...] = ()
    """Tokens in and out, by model."""
    fence: int = 0
    claimed_at: float = 0.0
    active_s: float = 0.0
    """Seconds of work in claims before this one."""
    last_at: float = 0.0
    """The last event that was work of the host."""
    model_calls: int = 0
    tool_calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    answer: Answered | None = None
    failure: Failed | None = None
    exited: Exited | None = None
    killed_by: str | None = None
    priority: int = 0
    paused: Paused | None = None
    """Why the run is paused; None when it is not."""
    before_pause: RunState | None = None
    """The state to which it returns."""
    summary: str | None = None
    """What the model made of the session's oldest turns in this run."""
    covered: int = 0
    """So many of the turns that came with the request."""
    attached: Mapping[str, str] = MappingProxyType({})
    """What the attachments hold, by digest: no event, the host adds it."""

    @property
    def request(self) -> Created:
        """The event that the run began with. Raises `InvalidTransition` for an empty log."""
        if self.created is None:
            raise InvalidTransition("the log is empty")
        return self.created

    @property
    def input(self) -> str:
        """What was asked."""
        return self.request.input

    @property
    def history(self) -> list[Turn]:
        """The session before this run; what was summed up stands first, as a turn of its own."""
        summary, turns = self.before
        return [Turn(SUMMED_UP, summary), *turns] if summary else list(turns)

    @property
    def before(self) -> tuple[str, list[Turn]]:
        """The session before this run: the summary of its older part, and the turns after that."""
        return self.request.summary if self.summary is None else self.summary, self.request.history[self.covered :]

    @property
    def after(self) -> tuple[str, list[Turn]]:
        """The session as the run after this one has it before itself."""
        summary, turns = self.before
        return summary, turns if self.answer is None else [*turns, Turn(self.input, self.answer.text)]

    @property
    def tools(self) -> list[ToolTurn]:
        """The finished tool calls, in order."""
        return [turn for turn in self.turns if isinstance(turn, ToolTurn)]

    @property
    def tokens(self) -> int:
        """Tokens in and out so far."""
        return self.tokens_in + self.tokens_out

    @property
    def steps(self) -> int:
        """Model calls and tool calls so far, the unfinished ones not counted."""
        return len(self.turns)


def fold(events: Iterable[RunEvent]) -> Log:
    """The state after `events`. Raises `Conflict` for a sequence that cannot be."""
    log = Log()
    for event in events:
        log = apply(log, event)
    return log


def apply(log: Log, event: RunEvent) -> Log:
    """The state after one more event. Raises `RunEnded` or `InvalidTransition`."""
    states.after(log.state, event.type, before_pause=log.before_pause)
    if event.seq != log.seq + 1:
        raise InvalidTransition(f"event {event.seq} cannot follow on event {log.seq}")
    noted = _noted(log, event.at, event.data)
    state = states.after(log.state, event.type, before_pause=log.before_pause, questions=len(noted.questions))
    if state.ended:
        noted = replace(noted, ended_at=event.at, open_model=None, open_tools=(), questions=())
    worked = not isinstance(event.data, CONTROL)
    return replace(noted, seq=event.seq, state=state, last_at=event.at if worked else log.last_at)


def _noted(log: Log, at: float, data: Data) -> Log:
    match data:
        case Created():
            return replace(log, created=data, created_at=at, priority=data.priority)
        case Claimed():
            return _claimed(log, at, data)
        case ModelCalled():
            _require_nothing_open(log)
            return replace(log, open_model=data, model_calls=log.model_calls + 1)
        case ModelReplied():
            return _replied(log, data)
        case ModelUsed():
            return replace(log, model_calls=log.model_calls + 1, **_tokens(log, data.model, data))
        case ToolCalled() | ToolAnswered() | ToolRefused():
            return _tool(log, data)
        case ApprovalRequested() | ApprovalNotified() | Approved() | Denied():
            return _approval(log, at, data)
        case Answered() | Failed() | Exited() | Killed():
            return _ended(log, data)
        case Paused() | Resumed() | Reniced():
            return _controlled(log, data)


def _ended(log: Log, data: Answered | Failed | Exited | Killed) -> Log:
    match data:
        case Answered():
            if log.questions:
                raise InvalidTransition("a person has not answered yet")
            return replace(log, answer=data)
        case Failed():
            return replace(log, failure=data)
        case Exited():
            return replace(log, exited=data)
        case Killed():
            return replace(log, killed_by=data.by)


def _controlled(log: Log, data: Paused | Resumed | Reniced) -> Log:
    match data:
        case Paused():
            return replace(log, paused=data, before_pause=log.state)
        case Resumed():
            return replace(log, paused=None, before_pause=None)
        case Reniced():
            return replace(log, priority=data.priority)


def _claimed(log: Log, at: float, data: Claimed) -> Log:
    if data.fence <= log.fence:
        raise InvalidTransition(f"fence {data.fence} is not above {log.fence}")
    # A model call that was cut off is made again: it left nothing behind. A tool call may have.
    return replace(
        log,
        fence=data.fence,
        started_at=log.started_at if log.started_at is not None else at,
        claimed_at=at,
        # Work ended at the last event of the claim before; a clock that went back counts as no work.
        active_s=log.active_s + (max(0.0, log.last_at - log.claimed_at) if log.fence else 0.0),
        open_model=None,
    )


def _require_nothing_open(log: Log) -> None:
    if log.open_model is not None or log.open_tools or log.questions:
        raise InvalidTransition("the call before this one has no reply yet")


def _replied(log: Log, data: ModelReplied) -> Log:
    if log.open_model is None or log.open_model.purpose is not data.purpose:
        raise InvalidTransition(f"a reply for {data.purpose.value} that nobody asked for")
    if data.purpose is Purpose.COMPACT:
        covered = min(log.covered + log.open_model.covers, len(log.request.history))
        tokens = _tokens(log, log.open_model.model, data)
        return replace(log, open_model=None, summary=data.text.strip(), covered=covered, **tokens)
    return replace(
        log,
        open_model=None,
        turns=(*log.turns, ModelTurn(data.purpose, data.text, data.cut, tuple(data.calls))),
        **_tokens(log, log.open_model.model, data),
    )


def _tokens(log: Log, model: str, data: ModelReplied | ModelUsed) -> dict[str, Any]:
    """The log's counts with those of one more call."""
    used = {name: (tokens_in, tokens_out) for name, tokens_in, tokens_out in log.by_model}
    before = used.get(model, (0, 0))
    used[model] = (before[0] + data.tokens_in, before[1] + data.tokens_out)
    return {
        "tokens_in": log.tokens_in + data.tokens_in,
        "tokens_out": log.tokens_out + data.tokens_out,
        "by_model": tuple((name, *counts) for name, counts in used.items()),
    }


# Tools --------------------------------------------------------------------------------------------


def _tool(log: Log, data: ToolCalled | ToolAnswered | ToolRefused) -> Log:
    if isinstance(data, ToolAnswered):
        called = next((call for call in log.open_tools if call.call_id == data.call_id), None)
        if called is None:
            raise InvalidTransition(f"an answer to the tool call {data.call_id!r} that was not made")
        turn = ToolTurn(called.call_id, called.name, called.arguments, data.result, data.error)
        left = tuple(call for call in log.open_tools if call is not called)
        return replace(log, open_tools=left, turns=(*log.turns, turn))
    _require_new(log, data.call_id)
    if isinstance(data, ToolRefused):
        turn = ToolTurn(data.call_id, data.name, data.arguments, None, data.error, made=False)
        return replace(log, turns=(*log.turns, turn))
    return replace(log, open_tools=(*log.open_tools, data), tool_calls=log.tool_calls + 1)


def _require_new(log: Log, call_id: str) -> None:
    """A call is made once: what was answered is never called again, whoever asks."""
    if log.open_model is not None:
        raise InvalidTransition("the model has not replied yet")
    known: set[str] = {call.call_id for call in log.open_tools}
    known |= {call.call_id for call in log.questions} | {call.call_id for call in log.tools}
    if call_id in known:
        raise InvalidTransition(f"there was a tool call {call_id!r} already")


def _approval(log: Log, at: float, data: ApprovalRequested | ApprovalNotified | Approved | Denied) -> Log:
    if isinstance(data, ApprovalRequested):
        _require_new(log, data.call_id)
        if log.open_tools or data.call_id in log.agreed:
            raise InvalidTransition(f"{data.call_id} cannot wait for an answer now")
        question = Question(data.call_id, data.name, data.arguments, at, data.timeout)
        return replace(log, questions=(*log.questions, question))
    asked = next((question for question in log.questions if question.call_id == data.call_id), None)
    if asked is None:
        raise InvalidTransition(f"no call {data.call_id!r} waits for an answer")
    if isinstance(data, ApprovalNotified):
        told = replace(asked, notified=True)
        return replace(log, questions=tuple(told if each is asked else each for each in log.questions))
    left = tuple(question for question in log.questions if question is not asked)
    if isinstance(data, Approved):
        return replace(log, questions=left, agreed=log.agreed | {data.call_id})
    turn = ToolTurn(asked.call_id, asked.name, asked.arguments, None, denial(data), made=False)
    return replace(log, questions=left, turns=(*log.turns, turn))


def denial(data: Denied) -> str:
    """What the model is told of a call that was not agreed to."""
    return f"denied by {data.by}" + (f": {data.reason}" if data.reason else "")


# Views --------------------------------------------------------------------------------------------


def summary(run: str, log: Log) -> RunSummary:
    """The run as lists show it."""
    return RunSummary(**_summary(run, log, shown=SHOWN_INPUT))


def detail(run: str, log: Log) -> Run:
    """The run in full."""
    return Run(
        **_summary(run, log, shown=None),
        answer=log.answer.text if log.answer else None,
        output=log.answer.output if log.answer else None,
        attachments=log.request.attachments,
        sources=log.answer.sources if log.answer else [],
        error=_error(log),
        killed_by=log.killed_by,
    )


def _error(log: Log) -> str | None:
    if log.exited is not None:
        code = log.exited.code
        return f"exit code {code}" if code is not None else "its host was lost: nobody knows how its program ended"
    return log.failure.error if log.failure else None


def _paused(log: Log) -> str | None:
    if log.paused is None or (log.state is not None and log.state.ended):
        return None
    return f"{log.paused.by}: {log.paused.reason}" if log.paused.reason else log.paused.by


def _summary(run: str, log: Log, *, shown: int | None) -> dict[str, Any]:
    request = log.request
    return {
        "id": run,
        "agent": request.agent,
        "version": request.version,
        "model": request.model,
        "state": log.state,
        "input": request.input[:shown],
        "created": log.created_at,
        "created_by": request.by,
        "session": request.session,
        "started": log.started_at,
        "ended": log.ended_at,
        "model_calls": log.model_calls,
        "tool_calls": log.tool_calls,
        "tokens_in": log.tokens_in,
        "tokens_out": log.tokens_out,
        "priority": log.priority,
        "parent": request.parent,
        "paused": _paused(log),
        "approvals": [question.name for question in log.questions],
    }

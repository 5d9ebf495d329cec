"""A run's log for people: one line an event, or its steps as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from llmagentos.api.runs import (
    Answered,
    ApprovalNotified,
    ApprovalRequested,
    Approved,
    Claimed,
    Created,
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
    ToolAnswered,
    ToolCalled,
    ToolRefused,
)
from llmagentos.cli.output import duration, paint, short, state, when
from llmagentos.core.i18n import tr

_WIDE = 160


def line(event: RunEvent, *, as_json: bool = False) -> str:
    """One event on one line."""
    if as_json:
        return msgspec.json.encode(event).decode()
    return f"{when(event.at, milliseconds=True)}  {event.type:<13}  {short(_told(event.data), _WIDE)}".rstrip()


def _told(data: Any) -> str:
    match data:
        case Created():
            return f"{data.agent} v{data.version}  {data.by}  {data.input}"
        case Claimed():
            return f"{data.holder}  fence={data.fence}"
        case ModelCalled():
            return f"{data.model}  {data.purpose.value}"
        case ModelReplied():
            asked = " ".join(f"{call.name}({call.arguments})" for call in data.calls)
            return (
                f"{data.tokens_in}+{data.tokens_out} tokens  {duration(data.duration_s)}  {data.text} {asked}".rstrip()
            )
        case ToolCalled():
            return f"{data.call_id}  {data.name}({_json(data.arguments)})"
        case ToolAnswered():
            outcome = f"error: {data.error}" if data.error is not None else _json(data.result)
            return f"{data.call_id}  {duration(data.duration_s)}  {outcome}"
        case ToolRefused():
            return f"{data.call_id}  {data.name}({_json(data.arguments)})  {data.error}"
        case Answered():
            return data.text
        case Failed():
            return f"{data.code}: {data.error}"
    return _told_of_control(data)


def _told_of_control(data: Any) -> str:
    match data:
        case ModelUsed():
            took = (
                f"{data.model}  {data.status}  {data.tokens_in}+{data.tokens_out} tokens  {duration(data.duration_s)}"
            )
            return f"{took}  {data.error}" if data.error else took
        case Exited():
            return tr("host lost") if data.code is None else tr("exit code {code}", code=data.code)
        case Killed() | Resumed():
            return data.by
        case Paused():
            return f"{data.by}  {data.reason or ''}"
        case Reniced():
            return f"{data.priority}  {data.by}"
        case ApprovalRequested():
            return f"{data.call_id}  {data.name}({_json(data.arguments)})"
        case ApprovalNotified():
            return f"{data.call_id}  webhook"
        case Approved() | Denied():
            return f"{data.call_id}  {data.by}  {data.reason or ''}"
    return ""


@dataclass(slots=True)
class _Step:
    """A line of the tree."""

    title: str
    numbers: str
    text: str


def tree(run: Run, events: Sequence[RunEvent]) -> Iterator[str]:
    """The run and its steps, with times and tokens."""
    took = (run.ended or (events[-1].at if events else run.created)) - (run.started or run.created)
    tokens = tr("{count_in} in, {count_out} out", count_in=run.tokens_in, count_out=run.tokens_out)
    waited = (run.started or run.created) - run.created
    yield f"{paint(run.id, 'cyan')}  {run.agent} v{run.version}  {state(run.state.value)}  {duration(took)}  {tokens}"
    yield f"│  {short(run.input, _WIDE)}"
    if waited >= 0.1:
        yield f"│  {tr('waited {time} for a host', time=duration(waited))}"
    steps = list(_steps(events))
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        yield f"{'└─' if last else '├─'} {step.title}  {step.numbers}".rstrip()
        if step.text:
            yield f"{'   ' if last else '│  '}   {short(step.text, _WIDE)}"


def _steps(events: Iterable[RunEvent]) -> Iterator[_Step]:
    reading = _Reading()
    for event in events:
        yield from reading.steps(event.data)


class _Reading:
    """What of the log was read: the calls that are still open."""

    def __init__(self) -> None:
        self._model: str | None = None
        self._calls: dict[str, str] = {}
        self._claimed = False
        self._asked = False
        self._purposes = {
            Purpose.ROUTE: tr("choose by embedding"),
            Purpose.TOOL: tr("choose with the model"),
            Purpose.ANSWER: tr("write the answer"),
        }

    def steps(self, data: Any) -> Iterator[_Step]:
        """The lines that one more event adds."""
        match data:
            case Claimed():
                yield from self._taken(data)
            case ModelCalled():
                self._model = data.model
            case ModelReplied():
                text = data.text or ", ".join(f"{call.name}({call.arguments})" for call in data.calls)
                purpose = Purpose.TOOL if data.calls else data.purpose
                yield _Step(f"{self._purposes[purpose]}: {self._model or '?'}", _model_numbers(data), text)
                self._model = None
            case ModelUsed():
                outcome = "" if data.status == "succeeded" else f"{data.status}: {data.error or ''}"
                yield _Step(f"{tr('model call')}: {data.model}", _model_numbers(data), outcome)
            case Paused() | Resumed() | Reniced():
                yield _control(data)
            case Answered() | Failed() | Exited() | Killed():
                yield _end(data)
            case _:
                yield from self._tool(data)

    def _taken(self, data: Claimed) -> Iterator[_Step]:
        if self._claimed and not self._asked:
            for name in [*([self._model] if self._model is not None else []), *self._calls.values()]:
                yield _Step(name, tr("interrupted"), "")
            yield _Step(tr("taken over by {holder}", holder=data.holder), "", "")
        self._claimed, self._model, self._asked = True, None, False

    def _tool(self, data: Any) -> Iterator[_Step]:
        match data:
            case ToolCalled():
                self._calls[data.call_id] = _called(data)
            case ToolAnswered():
                outcome = f"{tr('error')}: {data.error}" if data.error is not None else _json(data.result)
                yield _Step(self._calls.pop(data.call_id, data.call_id), duration(data.duration_s), outcome)
            case ToolRefused():
                yield _Step(_called(data), tr("refused"), data.error)
            case ApprovalRequested():
                self._asked = True
                self._calls[data.call_id] = _called(data)
                yield _Step(_called(data), tr("waits for approval"), "")
            case Approved() | Denied():
                word = tr("approved") if isinstance(data, Approved) else tr("denied")
                title = self._calls.pop(data.call_id, data.call_id)
                yield _Step(title, f"{word}, {tr('by {who}', who=data.by)}", data.reason or "")


def _called(data: ToolCalled | ToolRefused | ApprovalRequested) -> str:
    return f"{data.name}({short(_json(data.arguments), 60)})"


def _control(data: Paused | Resumed | Reniced) -> _Step:
    if isinstance(data, Paused):
        return _Step(state("paused"), tr("by {who}", who=data.by), data.reason or "")
    if isinstance(data, Resumed):
        return _Step(tr("resumed"), tr("by {who}", who=data.by), "")
    return _Step(tr("priority {priority}", priority=data.priority), tr("by {who}", who=data.by), "")


def _model_numbers(data: ModelReplied | ModelUsed) -> str:
    parts = [duration(data.duration_s)]
    if data.tokens_in or data.tokens_out:
        parts.append(tr("{count_in} in, {count_out} out", count_in=data.tokens_in, count_out=data.tokens_out))
    if data.queue_s >= 0.001:
        parts.append(tr("{time} queued", time=duration(data.queue_s)))
    if data.ttft_s:
        parts.append(tr("first token after {time}", time=duration(data.ttft_s)))
    if data.tokens_out > 1 and data.duration_s > data.ttft_s:
        parts.append(f"{data.tokens_out / max(1e-3, data.duration_s - data.ttft_s):.0f} tok/s")
    if isinstance(data, ModelReplied) and data.cut:
        parts.append(tr("cut at the limit of tokens"))
    return ", ".join(parts)


def _end(data: Answered | Failed | Exited | Killed) -> _Step:
    if isinstance(data, Answered):
        count = len(data.sources)
        numbers = [tr("{count} sources", count=count)] if count else []
        if data.replaced is not None:
            numbers.append(tr("with the records instead of the model's words: {why}", why=data.replaced))
        return _Step(tr("answered"), "; ".join(numbers), data.text)
    if isinstance(data, Failed):
        return _Step(state("failed"), data.code, data.error)
    if isinstance(data, Exited):
        told = tr("host lost") if data.code is None else tr("exit code {code}", code=data.code)
        return _Step(state("failed"), told, "")
    return _Step(state("killed"), tr("by {who}", who=data.by), "")


def _json(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()

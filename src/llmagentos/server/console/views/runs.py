"""Runs: rows of tables, and one run as a timeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
    RunSummary,
    ToolAnswered,
    ToolCalled,
    ToolRefused,
)
from llmagentos.server.console import words
from llmagentos.server.console.views.block import Block, block, record, shown
from llmagentos.server.console.words import Translate

MAX_ENTRIES = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the timeline. `since` is set while what it shows goes on."""

    key: int
    at: float
    look: str
    title: str
    name: str = ""
    numbers: list[str] = field(default_factory=list)
    since: float | None = None
    blocks: list[Block] = field(default_factory=list)
    call: str = ""
    """The tool call that it is about."""


def rows(runs: Iterable[RunSummary]) -> list[dict[str, Any]]:
    """Runs as the table of runs shows them."""
    return [
        {
            "id": run.id,
            "agent": run.agent,
            "state": run.state.value,
            "input": run.input,
            "priority": run.priority,
            "tokens": run.tokens_in + run.tokens_out,
            "created": run.created,
            "started": run.started,
            "ended": run.ended,
        }
        for run in runs
    ]


def page(run: Run, events: Sequence[RunEvent], t: Translate) -> dict[str, Any]:
    """One run: its facts, request and outcome, and what happened in order."""
    entries = timeline(events, t, ended=run.ended is not None)
    return {
        "run": {
            "id": run.id,
            "agent": run.agent,
            "state": run.state.value,
            "finished": run.state.ended,
            "input": run.input,
            "answer": run.answer,
            "error": run.error,
            "killed_by": run.killed_by,
            "priority": run.priority,
            "money": words.money(run.money),
            "paused": run.paused,
            "parent": run.parent,
            "wait": _wait(run, t),
            "sources": [record(source) for source in run.sources],
            "call": _call(events),
            "model": run.model,
            "started_by": run.created_by,
            "created": run.created,
            "started": run.started,
            "ended": run.ended,
            "tokens_in": run.tokens_in,
            "tokens_out": run.tokens_out,
            "model_calls": run.model_calls,
            "tool_calls": run.tool_calls,
        },
        "entries": entries[-MAX_ENTRIES:],
        "cut": MAX_ENTRIES if len(entries) > MAX_ENTRIES else 0,
    }


def _wait(run: Run, t: Translate) -> str | None:
    """What the run's next call waits for."""
    if run.wait is None:
        return None
    if run.wait.reason == "tools":
        return t("waits for tools that are away: {what}", what=run.wait.told or "?")
    reason = words.waits(t).get(run.wait.reason, run.wait.reason)
    return t("{reason}, place {position} at {model}", reason=reason, position=run.wait.position, model=run.wait.model)


def _call(events: Iterable[RunEvent]) -> int:
    """The event that began the answer that is being written; 0 when none is: its reply is known, or its host lost."""
    call = 0
    for event in events:
        if isinstance(event.data, ModelCalled):
            call = event.seq if event.data.purpose is Purpose.ANSWER else 0
        elif isinstance(event.data, ModelReplied | Claimed):
            call = 0
    return call


def timeline(events: Iterable[RunEvent], t: Translate, *, ended: bool) -> list[Entry]:
    """Events as entries; a call and its reply are one. Calls that never got one go on, or were cut off."""
    entries: list[Entry] = []
    for event in events:
        data = event.data
        if isinstance(data, ApprovalNotified):
            continue
        if isinstance(data, ModelReplied | ToolAnswered | Approved | Denied):
            call = "" if isinstance(data, ModelReplied) else data.call_id
            busy = [i for i, entry in enumerate(entries) if entry.since is not None and entry.call == call]
            if busy:
                entries[busy[-1]] = _closed(entries[busy[-1]], data, t)
                continue
        if isinstance(data, Claimed | Failed) or (isinstance(data, Paused) and data.now):
            _cut_off(entries, t, failed=isinstance(data, Failed))
        entries.append(_entry(event, t))
    if ended:
        _cut_off(entries, t)
    return entries


def _entry(event: RunEvent, t: Translate) -> Entry:
    data, key, at = event.data, event.seq, event.at
    match data:
        case Paused() | Resumed() | Reniced() | Killed() | Exited():
            return _controlled(event, data, t)
        case ModelUsed():
            blocks = [block(t("Error"), data.error)] if data.error else []
            look = "ok" if data.status == "succeeded" else "bad"
            return Entry(key, at, look, t("Model call"), data.model, _model_numbers(data, t), blocks=blocks)
        case Created():
            numbers = [t("session {session}", session=data.session)] if data.session else []
            return Entry(key, at, "", t("Asked"), data.by, numbers)
        case Claimed():
            return Entry(key, at, "", t("Taken up"), data.holder)
        case ModelCalled():
            return Entry(key, at, "busy", _purpose(data.purpose, t), data.model, since=at)
        case ToolCalled() | ToolRefused() | ApprovalRequested():
            return _tool(event, data, t)
        case Answered():
            numbers = [t("records: {count}", count=len(data.sources))] if data.sources else []
            return Entry(key, at, "ok", t("Answered"), numbers=numbers)
        case Failed():
            return Entry(key, at, "bad", t("Failed"), data.code, blocks=[block(t("Error"), data.error)])
        case ModelReplied() | ToolAnswered() | Approved() | Denied() | ApprovalNotified():
            # Its call is not among the events at hand.
            return _closed(Entry(key, at, "busy", t("Reply"), since=at), data, t)


def _tool(event: RunEvent, data: ToolCalled | ToolRefused | ApprovalRequested, t: Translate) -> Entry:
    blocks = [block(t("Arguments"), shown(data.arguments))] if data.arguments else []
    if isinstance(data, ToolRefused):
        blocks.append(block(t("Error"), data.error))
        return Entry(event.seq, event.at, "bad", t("Tool call refused"), data.name, blocks=blocks)
    asked = isinstance(data, ApprovalRequested)
    title, look = (t("Waits for approval"), "wait") if asked else (t("Tool call"), "busy")
    return Entry(event.seq, event.at, look, title, data.name, since=event.at, blocks=blocks, call=data.call_id)


def _controlled(event: RunEvent, data: Paused | Resumed | Reniced | Killed | Exited, t: Translate) -> Entry:
    """What people did to the run, and how its program ended."""
    key, at = event.seq, event.at
    match data:
        case Paused():
            return Entry(key, at, "wait", t("Paused"), data.by, [data.reason] if data.reason else [])
        case Resumed():
            return Entry(key, at, "", t("Resumed"), data.by)
        case Reniced():
            return Entry(key, at, "", t("Priority"), data.by, [str(data.priority)])
        case Killed():
            return Entry(key, at, "bad", t("Stopped"), data.by)
        case Exited():
            told = t("host lost") if data.code is None else t("exit code {code}", code=data.code)
            return Entry(key, at, "bad", t("Program ended"), told)


def _purpose(purpose: Purpose, t: Translate) -> str:
    match purpose:
        case Purpose.ANSWER:
            return t("Model writes the answer")
        case Purpose.TOOL:
            return t("Model chooses a tool")
        case Purpose.ROUTE:
            return t("Embedding finds the tool")
        case Purpose.COMPACT:
            return t("Model sums up the session")


_Closing = ModelReplied | ToolAnswered | Approved | Denied | ApprovalNotified


def _closed(entry: Entry, data: _Closing, t: Translate) -> Entry:
    blocks = list(entry.blocks)
    if isinstance(data, Approved | Denied | ApprovalNotified):
        return _answered(entry, data, t)
    if isinstance(data, ModelReplied):
        if data.text:
            blocks.append(block(t("Reply"), data.text))
        blocks += [block(call.name, call.arguments) for call in data.calls]
        if data.calls:
            entry = replace(entry, title=_purpose(Purpose.TOOL, t))
        return replace(entry, look="ok", since=None, blocks=blocks, numbers=_model_numbers(data, t))
    if data.error is not None:
        blocks.append(block(t("Error"), data.error))
    else:
        blocks.append(block(t("Result"), shown(data.result)))
    look = "bad" if data.error is not None else "ok"
    return replace(entry, look=look, since=None, blocks=blocks, numbers=[words.duration(data.duration_s)])


def _answered(entry: Entry, data: Approved | Denied | ApprovalNotified, t: Translate) -> Entry:
    """What a person said of a call."""
    if isinstance(data, ApprovalNotified):
        return replace(entry, look="", title=t("Webhook told"), since=None)
    agreed = isinstance(data, Approved)
    look, title = ("ok", t("Approved")) if agreed else ("bad", t("Denied"))
    return replace(entry, look=look, title=title, since=None, numbers=[each for each in (data.by, data.reason) if each])


def _model_numbers(data: ModelReplied | ModelUsed, t: Translate) -> list[str]:
    numbers = [words.duration(data.duration_s)]
    if data.queue_s >= 0.001:
        numbers.append(t("queued {time}", time=words.duration(data.queue_s)))
    if data.ttft_s:
        numbers.append(t("first token {time}", time=words.duration(data.ttft_s)))
    if data.tokens_in or data.tokens_out:
        numbers.append(
            t("tokens {given} / {made}", given=words.number(data.tokens_in), made=words.number(data.tokens_out))
        )
    if isinstance(data, ModelReplied) and data.cut:
        numbers.append(t("cut at the limit of tokens"))
    return numbers


def _cut_off(entries: list[Entry], t: Translate, *, failed: bool = False) -> None:
    """Nothing can answer the last call any more: it failed, the run ended, or another host took it."""
    look, numbers = ("bad", []) if failed else ("", [t("cut off")])
    for i, entry in enumerate(entries):
        if entry.since is not None:
            entries[i] = replace(entry, look=look, since=None, numbers=numbers)

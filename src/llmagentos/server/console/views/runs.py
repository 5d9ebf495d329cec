"""Runs: rows of tables, and one run as a timeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmagentos.api.runs import (
    Answered,
    Claimed,
    Created,
    Failed,
    Killed,
    ModelCalled,
    ModelReplied,
    Purpose,
    Run,
    RunEvent,
    RunSummary,
    ToolAnswered,
    ToolCalled,
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


def rows(runs: Iterable[RunSummary]) -> list[dict[str, Any]]:
    """Runs as the table of runs shows them."""
    return [
        {
            "id": run.id,
            "agent": run.agent,
            "state": run.state.value,
            "input": run.input,
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
            "sources": [record(source) for source in run.sources],
            "step": _step(events),
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


def _step(events: Iterable[RunEvent]) -> int:
    """Grows whenever text that was shown while it was generated is void: its reply is known, or its host was lost."""
    data = [event.data for event in events]
    claims = sum(isinstance(item, Claimed) for item in data)
    return max(0, claims - 1) + sum(isinstance(item, ModelReplied) for item in data)


def timeline(events: Iterable[RunEvent], t: Translate, *, ended: bool) -> list[Entry]:
    """Events as entries; a call and its reply are one. Calls that never got one go on, or were cut off."""
    entries: list[Entry] = []
    for event in events:
        if isinstance(event.data, ModelReplied | ToolAnswered) and entries and entries[-1].since is not None:
            entries[-1] = _closed(entries[-1], event.data, t)
        else:
            _cut_off(entries, t, failed=isinstance(event.data, Failed))
            entries.append(_entry(event, t))
    if ended:
        _cut_off(entries, t)
    return entries


def _entry(event: RunEvent, t: Translate) -> Entry:
    data, key, at = event.data, event.seq, event.at
    match data:
        case Created():
            numbers = [t("session {session}", session=data.session)] if data.session else []
            return Entry(key, at, "", t("Asked"), data.by, numbers)
        case Claimed():
            return Entry(key, at, "", t("Taken up"), data.holder)
        case ModelCalled():
            return Entry(key, at, "busy", _purpose(data.purpose, t), data.model, since=at)
        case ToolCalled():
            blocks = [block(t("Arguments"), shown(data.arguments))] if data.arguments else []
            return Entry(key, at, "busy", t("Tool call"), data.name, since=at, blocks=blocks)
        case Answered():
            numbers = [t("records: {count}", count=len(data.sources))] if data.sources else []
            return Entry(key, at, "ok", t("Answered"), numbers=numbers)
        case Failed():
            return Entry(key, at, "bad", t("Failed"), data.code, blocks=[block(t("Error"), data.error)])
        case Killed():
            return Entry(key, at, "bad", t("Stopped"), data.by)
        case ModelReplied() | ToolAnswered():  # its call is not among the events at hand
            return _closed(Entry(key, at, "busy", t("Reply"), since=at), data, t)


def _purpose(purpose: Purpose, t: Translate) -> str:
    match purpose:
        case Purpose.ANSWER:
            return t("Model writes the answer")
        case Purpose.TOOL:
            return t("Model chooses a tool")
        case Purpose.ROUTE:
            return t("Embedding finds the tool")


def _closed(entry: Entry, data: ModelReplied | ToolAnswered, t: Translate) -> Entry:
    blocks = list(entry.blocks)
    if isinstance(data, ModelReplied):
        if data.text:
            blocks.append(block(t("Reply"), data.text))
        return replace(entry, look="ok", since=None, blocks=blocks, numbers=_model_numbers(data, t))
    if data.error is not None:
        blocks.append(block(t("Error"), data.error))
    else:
        blocks.append(block(t("Result"), shown(data.result)))
    look = "bad" if data.error is not None else "ok"
    return replace(entry, look=look, since=None, blocks=blocks, numbers=[words.duration(data.duration_s)])


def _model_numbers(data: ModelReplied, t: Translate) -> list[str]:
    numbers = [words.duration(data.duration_s)]
    if data.queue_s >= 0.001:
        numbers.append(t("queued {time}", time=words.duration(data.queue_s)))
    if data.ttft_s:
        numbers.append(t("first token {time}", time=words.duration(data.ttft_s)))
    if data.tokens_in or data.tokens_out:
        numbers.append(
            t("tokens {given} / {made}", given=words.number(data.tokens_in), made=words.number(data.tokens_out))
        )
    if data.cut:
        numbers.append(t("cut at the limit of tokens"))
    return numbers


def _cut_off(entries: list[Entry], t: Translate, *, failed: bool = False) -> None:
    """Nothing can answer the last call any more: it failed, the run ended, or another host took it."""
    if entries and entries[-1].since is not None:
        look, numbers = ("bad", []) if failed else ("", [t("cut off")])
        entries[-1] = replace(entries[-1], look=look, since=None, numbers=numbers)

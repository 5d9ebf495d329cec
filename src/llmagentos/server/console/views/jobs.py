"""Jobs: rows of the table, and one job with what its tasks came to on each node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from llmagentos.api.job_control import Batch, JobChange, Waiting
from llmagentos.api.jobs import (
    Job,
    JobHost,
    JobRecord,
    JobSummary,
    LogLine,
    PlayStarted,
    Recap,
    Stats,
    TaskResult,
    TaskStarted,
)
from llmagentos.server.console.paging import page as page_of
from llmagentos.server.console.views.block import Block, block, first_line, shown
from llmagentos.server.console.views.diff import DiffLine, lines
from llmagentos.server.console.words import Translate, compact

MAX_EVENTS = 1000
MAX_CHANGES = 100
MAX_FILES = 100
MAX_RESULTS = 40
"""Of one task; what failed or changed comes first."""
FEW = 20
"""Changes of each node are shown for so many nodes."""
RECAP = ("ok", "changed", "failed", "unreachable", "skipped", "rescued", "ignored")
_USUAL = frozenset({"ok", "changed", "failed", "skipped"})
_QUIET = frozenset({"ok", "changed", "skipped"})
_TOLD = frozenset({"msg", "stdout", "stderr", "stdout_lines", "stderr_lines"})


@dataclass(frozen=True, slots=True)
class Result:
    """What a task came to on a host, or a line that was said meanwhile."""

    key: int
    status: str
    host: str
    message: str = ""
    took: float | None = None
    diff: list[DiffLine] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


@dataclass(slots=True)
class Task:
    """A task and its results on all nodes."""

    name: str
    results: list[Result] = field(default_factory=list)
    more: Counter[str] = field(default_factory=Counter)
    """What else it came to on how many nodes, when those are too many to show."""


@dataclass(slots=True)
class Play:
    """A play and its tasks."""

    name: str
    tasks: list[Task] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What of a job is looked at: nodes in a state, or one node; and the page of the list."""

    state: str = ""
    node: str = ""
    page: str | None = None


_EVERYTHING = Chosen()
_URGENT = {state: rank for rank, state in enumerate(("failed", "unreachable", "interrupted", "running", "cancelling"))}
"""Nodes that are looked for come first."""


def waits(waiting: Waiting | None, t: Translate) -> str:
    """Why a job does not run now."""
    if waiting is None:
        return ""
    return {
        "approval": t("somebody has to approve it"),
        "window": t("window {name}", name=waiting.detail),
        "lock": t("lock {name}", name=waiting.detail),
        "backoff": t("next attempt: {name}", name=waiting.detail),
        "gate": t("health gate of batch {name}", name=waiting.detail),
        "pause": t("pause after batch {name}", name=waiting.detail),
        "rollback": t("rollback: {name}", name=waiting.detail),
    }[waiting.reason]


def rows(jobs: Iterable[JobSummary], t: Translate) -> list[dict[str, Any]]:
    """Jobs as the table shows them."""
    return [
        {
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "nodes": ", ".join(job.nodes[:5]) + (" …" if len(job.nodes) > 5 else ""),
            "created_by": job.created_by,
            "created": job.created,
            "started": job.started,
            "ended": job.ended,
            "waits": waits(job.waiting_for, t),
        }
        for job in jobs
    ]


def page(
    job: Job,
    records: Sequence[JobRecord],
    t: Translate,
    *,
    changes: Iterable[JobChange] = (),
    chosen: Chosen = _EVERYTHING,
) -> dict[str, Any]:
    """One job; `records` are its newest events, `changes` its newest changes."""
    cut = len(records) >= MAX_EVENTS or (bool(records) and not chosen.node and records[0].id > 1)
    counted = _counted(records)
    away = set(job.waiting)
    hosts = [host for host in job.hosts if chosen.state in ("", host.state) and chosen.node in ("", host.node)]
    hosts.sort(key=lambda host: _URGENT.get(host.state, len(_URGENT)))
    shown = page_of(hosts, chosen.page, {"state": chosen.state, "node": chosen.node}, path=f"/jobs/{job.summary.id}")
    found = [_row(host, counted.get(host.node, Counter()), host.node in away, t) for host in shown.items]
    return {
        "job": _head(job, t),
        "batches": [_batch(batch, t) for batch in job.batches],
        "rows": found,
        "shown": shown,
        "states_of_nodes": Counter(host.state for host in job.hosts).most_common(),
        "chosen": chosen,
        "recap_columns": [name for name in RECAP if name in _USUAL or any(row["recap"][name] for row in found)],
        "plays": plays(records, t),
        "cut": len(records) if cut else 0,
        "changes": [_change(change, t) for change in changes],
    }


def _head(job: Job, t: Translate) -> dict[str, Any]:
    summary = job.summary
    modes = {"check": t("check only"), "diff": t("with differences")}
    return {
        "id": summary.id,
        "name": summary.name,
        "state": summary.state,
        "finished": summary.ended is not None,
        "created": summary.created,
        "created_by": summary.created_by,
        "started": summary.started,
        "ended": summary.ended,
        "modes": [modes.get(each, each) for each in summary.modes],
        **_control(job, t),
    }


def _change(change: JobChange, t: Translate) -> dict[str, Any]:
    """Who changed what: a node, a batch, the approval, or else the job."""
    about = {
        "host": change.node or "",
        "batch": t("Batch {number}", number=change.batch if change.batch is not None else ""),
        "approval": t("Approval"),
    }
    return {
        "at": change.at,
        "by": change.by,
        "about": about.get(change.what, t("Job")),
        "attempt": change.attempt if change.attempt > 1 else None,
        "before": change.before,
        "after": change.after,
        "message": change.message or "",
    }


def _control(job: Job, t: Translate) -> dict[str, Any]:
    summary, spec, approval = job.summary, job.spec, job.approval
    said = ""
    if approval is not None and approval.by is not None:
        words = {"approved": t("approved by {who}", who=approval.by), "denied": t("denied by {who}", who=approval.by)}
        said = ": ".join(filter(None, (words.get(approval.state), approval.reason)))
    return {
        "waits": waits(summary.waiting_for, t),
        "until": summary.waiting_for.until if summary.waiting_for is not None else None,
        "origin": summary.origin,
        "priority": summary.priority,
        "lock": spec.lock,
        "window": spec.window,
        "approval": said,
        "message": job.message,
    }


def _batch(batch: Batch, t: Translate) -> dict[str, Any]:
    return {
        "name": t("rollback") if batch.kind == "rollback" else str(batch.number),
        "state": batch.state,
        "nodes": ", ".join(batch.nodes),
        "message": batch.message or "",
        "job": batch.job,
    }


def _row(host: JobHost, counted: Counter[str], away: bool, t: Translate) -> dict[str, Any]:
    note = host.message or ""
    if away and host.state == "queued":
        note = t("The node is away: it gets the job when it is back.")
    elif host.ahead:
        note = t("Jobs before this one: {count}", count=host.ahead)
    if host.state == "held" and host.batch is not None and not note:
        note = t("Waits for batch {number}.", number=host.batch)
    recap = host.recap if host.recap is not None else Stats(**{name: counted[name] for name in RECAP})
    return {
        "node": host.node,
        "state": host.state,
        "recap": msgspec.structs.asdict(recap),
        "started": host.started,
        "ended": host.ended,
        "note": note,
    }


def _counted(records: Iterable[JobRecord]) -> dict[str, Counter[str]]:
    """The recap of each node so far. As Ansible counts: what changed or was ignored is ok as well."""
    counted: dict[str, Counter[str]] = {}
    for record in records:
        event = record.event
        if isinstance(event, TaskResult) and not event.is_item:
            also = ["ok"] if event.status in ("changed", "ignored") else []
            counted.setdefault(record.node, Counter()).update([event.status, *also])
    return counted


def plays(records: Iterable[JobRecord], t: Translate) -> list[Play]:
    """What the nodes did, each for itself, brought together by play and task."""
    together = _Together(t)
    for record in records:
        together.add(record)
    found = [play for play in together.plays if play.tasks]
    for play in found:
        for task in play.tasks:
            _shorten(task)
    return found


def _shorten(task: Task) -> None:
    """Leave what matters most, in its order."""
    if len(task.results) <= MAX_RESULTS:
        return
    ranked = sorted(range(len(task.results)), key=lambda number: (_rank(task.results[number]), number))
    kept = set(ranked[:MAX_RESULTS])
    task.more = Counter(result.status for number, result in enumerate(task.results) if number not in kept)
    task.results = [result for number, result in enumerate(task.results) if number in kept]


def _rank(result: Result) -> int:
    return 0 if result.status not in _QUIET else 1 if result.status == "changed" else 2


class _Together:
    """Nodes run the same playbook at their own pace: the n-th task of a name on one is that on the others."""

    def __init__(self, t: Translate) -> None:
        self.plays: list[Play] = []
        self.t = t
        self._plays: dict[tuple[str, int], Play] = {}
        self._tasks: dict[tuple[int, str, int], Task] = {}
        self._seen: dict[str, Counter[str]] = {}
        self._play: dict[str, Play] = {}
        self._task: dict[str, Task] = {}

    def add(self, record: JobRecord) -> None:
        node, event = record.node, record.event
        if isinstance(event, PlayStarted):
            self._begin_play(node, event.name)
        elif isinstance(event, TaskStarted):
            self._begin_task(node, event.name, event.handler)
        elif isinstance(event, TaskResult):
            self._task_of(node, event.task).results.append(_result(record.id, event, self.t))
        elif isinstance(event, LogLine):
            line = Result(record.id, event.level, node, event.text)
            self._task_of(node, "").results.append(line)
        else:
            assert isinstance(event, Recap)  # the table of nodes has it

    def _begin_play(self, node: str, name: str) -> None:
        seen = self._seen.setdefault(node, Counter())
        seen[f"play {name}"] += 1
        key = (name, seen[f"play {name}"])
        if key not in self._plays:
            self._plays[key] = Play(name)
            self.plays.append(self._plays[key])
        self._play[node] = self._plays[key]
        self._task.pop(node, None)
        self._seen[node] = Counter({text: count for text, count in seen.items() if text.startswith("play ")})

    def _begin_task(self, node: str, name: str, handler: bool) -> None:
        if node not in self._play:  # what came before is not among the records at hand
            self._begin_play(node, "")
        seen, play = self._seen[node], self._play[node]
        seen[f"task {name}"] += 1
        key = (id(play), name, seen[f"task {name}"])
        if key not in self._tasks:
            self._tasks[key] = Task(self.t("Handler: {name}", name=name) if handler else name)
            play.tasks.append(self._tasks[key])
        self._task[node] = self._tasks[key]

    def _task_of(self, node: str, name: str) -> Task:
        if node not in self._task:
            self._begin_task(node, name or self.t("Before the first task"), handler=False)
        return self._task[node]


def _result(key: int, event: TaskResult, t: Translate) -> Result:
    host = f"{event.host} → {event.delegated_to}" if event.delegated_to else event.host
    result = event.result
    message = _message(event)
    if event.is_item:
        label = first_line(event.item if isinstance(event.item, str) else compact(event.item), 120)
        message = f"{label}: {message}" if message else label
    texts = [(t("Output"), result.get("stdout")), (t("Errors"), result.get("stderr"))]
    blocks = [block(label, text) for label, text in texts if isinstance(text, str) and text.strip()]
    rest = {name: value for name, value in result.items() if name not in _TOLD}
    if event.status not in _QUIET and rest:
        blocks.append(block(t("Result"), shown(rest)))
    blocks = [made for made in blocks if made.text != message]
    changed = [line for difference in event.diff for line in lines(difference)]
    return Result(key, event.status, host, message, event.duration_s, changed, blocks)


def _message(event: TaskResult) -> str:
    result = event.result
    names = ["msg", "stderr", "stdout"]
    if event.status in _QUIET:
        names = ["skip_reason", "msg"] if event.status == "skipped" else ["msg"]
    texts = (result.get(name) for name in names)
    return next((first_line(text) for text in texts if isinstance(text, str) and text.strip()), "")

"""What a tool did, resource by resource, as the events and the recap of a job."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from llmagentos.api.bounded import bounded
from llmagentos.api.jobs import Difference, JobEvent, LogLine, PlayStarted, Recap, Stats, TaskResult, TaskStarted

DIFF_BYTES = 32 * 1024
LINE = 16 * 1024
LOG_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Result:
    """One resource or state."""

    name: str
    kind: str
    status: Literal["ok", "changed", "failed", "skipped"]
    result: Mapping[str, Any] = field(default_factory=dict)
    diffs: Sequence[str] = ()
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """All of a tool's results, in its order; `error` when it did not come to any."""

    results: Sequence[Result] = ()
    error: str | None = None


class Log:
    """The events of one run, appended to a file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._seq = 0
        self._written = 0

    def say(self, level: Literal["info", "warning", "error"], text: str) -> None:
        """A line that is no result."""
        self._append(LogLine(**self._next(), level=level, text=text[:LINE]))

    def begin(self, name: str) -> None:
        """`PLAY [name]`."""
        self._append(PlayStarted(**self._next(), name=name[:LINE]))

    def tell(self, host: str, result: Result) -> None:
        """One result, under a heading of its own."""
        name = result.name[:LINE]
        self._append(TaskStarted(**self._next(), name=name, action=result.kind))
        self._append(
            TaskResult(
                **self._next(),
                host=host,
                task=name,
                action=result.kind,
                status=result.status,
                result=bounded(dict(result.result)),
                diff=[Difference(prepared=bounded({"": text}, DIFF_BYTES)[""]) for text in result.diffs[:50]],
                duration_s=result.duration_s,
            )
        )

    def recap(self, host: str, results: Sequence[Result]) -> Stats:
        """`PLAY RECAP`."""
        counts = {status: sum(each.status == status for each in results) for status in ("ok", "changed", "failed")}
        skipped = sum(each.status == "skipped" for each in results)
        stats = Stats(
            ok=counts["ok"] + counts["changed"], changed=counts["changed"], failed=counts["failed"], skipped=skipped
        )
        self._append(Recap(**self._next(), hosts={host: stats}))
        return stats

    def _next(self) -> dict[str, Any]:
        self._seq += 1
        return {"seq": self._seq, "at": round(time.time(), 3)}

    def _append(self, event: JobEvent) -> None:
        line = msgspec.json.encode(event) + b"\n"
        if self._written + len(line) > LOG_BYTES and isinstance(event, TaskResult):
            line = msgspec.json.encode(msgspec.structs.replace(event, result={}, diff=[])) + b"\n"
        self._written += len(line)
        os.write(self._descriptor, line)

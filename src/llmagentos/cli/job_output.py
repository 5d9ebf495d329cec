"""A job's events as an Ansible user expects to read them.

The nodes of a job work independently of each other, as with Ansible's strategy `free`: a heading is
printed again when another node's result comes between.
"""

from __future__ import annotations

import difflib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmagentos.api.jobs import (
    Difference,
    JobHost,
    JobRecord,
    LogLine,
    PlayStarted,
    Recap,
    Stats,
    TaskResult,
    TaskStarted,
)
from llmagentos.cli.output import emit, note, paint

_DEBUG = frozenset({"debug", "ansible.builtin.debug"})
_COLOURS = {
    "ok": "green",
    "changed": "yellow",
    "failed": "red",
    "ignored": "cyan",
    "skipped": "cyan",
    "unreachable": "bright_red",
}


class Printer:
    """Prints records as they come. `hosts` is how many nodes the job has; `verbosity` as `-v`."""

    def __init__(self, *, hosts: int, verbosity: int = 0) -> None:
        self._alone = hosts <= 1
        self._verbosity = verbosity
        self._heading = ""
        self._plays: dict[str, int] = {}  # plays begun, by node
        self._shown_plays = 0
        self._current: dict[str, TaskStarted] = {}  # by node
        self._looping: set[str] = set()  # nodes whose current task told of items
        self.recaps: dict[str, dict[str, Stats]] = {}
        """What each node told at last, by host: its own, and `localhost` where a play says so."""

    def show(self, record: JobRecord) -> None:
        """Print one event."""
        event, node = record.event, record.node
        if isinstance(event, PlayStarted):
            self._play(node, event)
        elif isinstance(event, TaskStarted):
            self._current[node] = event
            self._looping.discard(node)
            if self._alone:
                self._task(node)
        elif isinstance(event, TaskResult):
            self._task(node)
            self._result(node, event)
        elif isinstance(event, Recap):
            self.recaps[node] = event.hosts
        elif isinstance(event, LogLine):
            _line(event, "" if self._alone else f"[{node}] ")

    def _play(self, node: str, event: PlayStarted) -> None:
        self._plays[node] = self._plays.get(node, 0) + 1
        self._current.pop(node, None)
        if self._plays[node] > self._shown_plays:
            self._shown_plays = self._plays[node]
            self._heading = ""
            _banner(f"PLAY [{event.name}]")

    def _task(self, node: str) -> None:
        started = self._current.get(node)
        if started is None:
            return
        heading = f"{'RUNNING HANDLER' if started.handler else 'TASK'} [{started.name}]"
        if self._alone:  # told once, when the task begins, even if the one before had the same name
            del self._current[node]
        elif heading == self._heading:
            return
        self._heading = heading
        _banner(heading)

    def _result(self, node: str, event: TaskResult) -> None:
        for diff in event.diff:
            for line in diff_lines(diff):
                emit(line)
        looped = node in self._looping and not event.is_item
        if event.is_item:
            self._looping.add(node)
        if not looped or event.status == "unreachable":
            emit(paint(result_line(event, self._verbosity), _COLOURS[event.status]))
        if event.status == "ignored":
            emit(paint("...ignoring", "cyan"))


def result_line(event: TaskResult, verbosity: int = 0) -> str:
    """`changed: [web1] => (item=a)`, `fatal: [web1]: FAILED! => {...}` and so on."""
    host = f"{event.host} -> {event.delegated_to}" if event.delegated_to else event.host
    item = f" (item={_item(event.item)})" if event.is_item else ""
    if event.status == "unreachable":
        return f"fatal: [{host}]: UNREACHABLE!{item} => {_json(event.result)}"
    if event.status in ("failed", "ignored"):
        head = f"failed: [{host}]{item}" if event.is_item else f"fatal: [{host}]: FAILED!"
        return f"{head} => {_json(event.result)}"
    word = {"skipped": "skipping"}.get(event.status, event.status)
    arrow = f" =>{item}" if item else ""
    if event.action in _DEBUG and event.status != "skipped":
        return f"{word}: [{host}]{arrow} => {_json(event.result, indent=4)}"
    if verbosity and event.result:
        return f"{word}: [{host}]{arrow} => {_json(event.result)}"
    return f"{word}: [{host}]{arrow}"


def _item(item: Any) -> str:
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, sort_keys=True)


def _json(result: dict[str, Any], *, indent: int | None = None) -> str:
    return json.dumps(result, ensure_ascii=False, sort_keys=True, indent=indent)


def diff_lines(diff: Difference) -> Iterator[str]:
    """A unified diff, coloured on a terminal."""
    if diff.prepared:
        lines: Sequence[str] = diff.prepared.splitlines()
    else:
        lines = [
            line.rstrip("\n")
            for line in difflib.unified_diff(
                diff.before.splitlines(),
                diff.after.splitlines(),
                f"before{': ' + diff.before_header if diff.before_header else ''}",
                f"after{': ' + diff.after_header if diff.after_header else ''}",
                lineterm="",
            )
        ]
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in lines:
        colour = colours.get(line[:1])
        yield paint(line, colour) if colour else line
    if lines:
        yield ""


def _line(event: LogLine, where: str) -> None:
    if event.level == "info":
        emit(where + event.text)
        return
    prefix = {"warning": "[WARNING]: ", "deprecated": "[DEPRECATION WARNING]: ", "error": "ERROR! "}[event.level]
    colour = {"warning": "magenta", "deprecated": "magenta", "error": "red"}[event.level]
    sys.stdout.flush()
    note(paint(f"{where}{prefix}{event.text}", colour, err=True))


def recap(hosts: Sequence[JobHost], told: Mapping[str, Mapping[str, Stats]] | None = None) -> None:
    """`PLAY RECAP`, with a line for each host that anything was run for; `told` is what each node told of its hosts."""
    _banner("PLAY RECAP")
    for host in hosts:
        lines = (told or {}).get(host.node)
        if lines is None and host.recap is not None:
            lines = {host.node: host.recap}
        for name, stats in (lines or {}).items():
            emit(recap_line(name, stats))
        if not lines and (host.state != "succeeded" or host.message):
            emit(f"{host.node:<26} : {host.state}" + (f": {host.message}" if host.message else ""))
    emit()


def recap_line(node: str, stats: Stats) -> str:
    """`web1 : ok=2 changed=1 ...`, counted things in their colours."""
    bad = stats.failed or stats.unreachable
    name = paint(f"{node:<26}", "red" if bad else "yellow" if stats.changed else "green")
    colours = {
        "ok": "green",
        "changed": "yellow",
        "unreachable": "red",
        "failed": "red",
        "skipped": "cyan",
        "rescued": "yellow",
        "ignored": "blue",
    }
    counts = []
    for field, colour in colours.items():
        count = getattr(stats, field)
        text = f"{field}={count:<4}"
        counts.append(paint(text, colour) if count else text)
    return f"{name} : {' '.join(counts)}".rstrip()


def _banner(text: str) -> None:
    width = min(shutil.get_terminal_size((80, 24)).columns, 200) - 1
    emit()
    emit(f"{text} {'*' * max(3, width - len(text) - 1)}")

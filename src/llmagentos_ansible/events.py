# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""The event log of one run: bounded JSON lines, each written whole."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENT_BYTES = 200 * 1024  # below what the server takes of one
LOG_BYTES = 64 * 1024 * 1024
TEXT = 16 * 1024  # characters of one line, name or label

# Exit codes beyond those that ansible-playbook documents (0, 2, 4), as ansible-core uses them.
INTERRUPTED = 99
UNEXPECTED = 250


class Log:
    """Appends events to a file, numbered from 1. Safe to call from several threads of one process."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._written = 0
        self._seq = 0
        self.recap: dict[str, dict[str, int]] = {}
        self.failure: str | None = None
        self.mine: Callable[[str], bool] = lambda _: True  # hosts that are told of here, in a job that spans nodes

    def append(self, kind: str, **members: Any) -> None:
        """One event, as `llmagentos.api.jobs` describes it. Over the limits its result and diff are left out."""
        with self._lock:
            self._seq += 1
            event = {"type": kind, "seq": self._seq, "at": round(time.time(), 3)} | members
            line = _line(event)
            if len(line) > EVENT_BYTES or self._written + len(line) > LOG_BYTES:
                line = _line(event | {"result": {"msg": f"[{len(line)} bytes were left out]"}, "diff": []})
            self._written += len(line)
            os.write(self._descriptor, line)

    def say(self, level: str, text: str) -> None:
        """A line that is no result."""
        self.append("log", level=level, text=cut(text))

    def error(self, text: str) -> None:
        """What ended the run before its end."""
        self.failure = self.failure or cut(text, 4000)
        self.say("error", text)


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace") + b"\n"


def cut(text: str, limit: int = TEXT) -> str:
    """The text, bounded, in valid Unicode: bytes that are not UTF-8 come from ansible-core as surrogates."""
    clean = text[:limit].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return clean if len(text) <= limit else f"{clean}…[{len(text) - limit} characters cut]"


_current: list[Log] = []


def open_log(path: Path) -> Log:
    """The log of this process, which the callback plugin finds by `current`."""
    _current.append(Log(path))
    return _current[-1]


def current() -> Log:
    """The log that `open_log` made."""
    return _current[-1]

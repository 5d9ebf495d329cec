"""What the supervisor says: lines on the terminal and in `logs/up.log`, and on a terminal a line of progress."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from llmagentos.core.i18n import tr


class Report:
    """Says things once in each place. `terminal` None: only the log (`up --detach`)."""

    def __init__(self, log: Path, terminal: TextIO | None) -> None:
        self._log = log
        self._terminal = terminal
        self._live = terminal is not None and terminal.isatty()
        self._shown = ""
        self._progress: dict[str, str] = {}
        self._seconds: float | None = None

    def say(self, text: str) -> None:
        """A line for the operator."""
        with suppress(OSError), self._log.open("a", encoding="utf-8") as file:  # a full disk must not stop what runs
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")
        self._erase()
        self._print(f"{text}\n")
        self._draw()

    def progress(self, parts: Mapping[str, str], *, seconds: float | None = None) -> None:
        """How far each part is, `seconds` after the start: redrawn on a terminal, elsewhere a line for each change."""
        if not self._live:
            for name, how in parts.items():
                if self._progress.get(name) != how:
                    self.say(f"{name}: {how}")
        self._progress = dict(parts)
        self._seconds = seconds
        if self._live:
            self._erase()
            self._draw()

    def settled(self) -> None:
        """Nothing is under way any more: the line of progress becomes an ordinary one."""
        if self._live and self._progress:
            self._erase()
            self._print("".join(f"{name}: {how}\n" for name, how in self._progress.items()))
        self._progress = {}

    def _draw(self) -> None:
        if self._live and self._progress:
            self._shown = tr("starting: ") + " · ".join(f"{name} {how}" for name, how in self._progress.items())
            if self._seconds is not None:
                self._shown += f" ({self._seconds:.0f} s)"
            self._print(self._shown)

    def _erase(self) -> None:
        if self._shown:
            self._print("\r\x1b[K")
            self._shown = ""

    def _print(self, text: str) -> None:
        if self._terminal is None:
            return
        try:
            self._terminal.write(text)
            self._terminal.flush()
        except OSError:  # the terminal was closed; the log has it all
            self._terminal = None
            self._live = False
            self._shown = ""

"""A calendar in an iCalendar file (RFC 5545): the part of it that appointments with begin and end need.

Other programs' properties are kept as they are; what this one cannot read (recurring and whole-day
events) stays in the file and is not shown.
"""

from __future__ import annotations

import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_STAMP = "%Y%m%dT%H%M%S"
_EMPTY = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//LLMAgentOS//assistant//EN", "END:VCALENDAR"]
_ESCAPED = {"\\n": "\n", "\\N": "\n", "\\,": ",", "\\;": ";", "\\\\": "\\"}


@dataclass(frozen=True)
class Event:
    """An appointment, in local time as `2026-11-23T10:00`."""

    summary: str
    begin: str
    end: str
    location: str = ""


class Busy(Exception):
    """Something else is at that time."""


class Calendar:
    """The events of one file. One process writes it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def events(self) -> list[Event]:
        """All of them, the first first."""
        return sorted(_events(self._lines()), key=lambda event: event.begin)

    def add(self, event: Event) -> None:
        """Raises `ValueError` for times that are none, `Busy` when they are taken."""
        begin, end = parse(event.begin), parse(event.end)
        if end <= begin:
            raise ValueError(f"it would end ({event.end}) before it begins ({event.begin})")
        for other in self.events():
            if begin < parse(other.end) and parse(other.begin) < end:
                raise Busy(f"{other.summary!r} is from {other.begin} to {other.end}")
        lines = self._lines()
        new = [
            "BEGIN:VEVENT",
            f"UID:{uuid.uuid4()}",
            f"DTSTAMP:{datetime.now().strftime(_STAMP)}",
            f"DTSTART:{begin.strftime(_STAMP)}",
            f"DTEND:{end.strftime(_STAMP)}",
            f"SUMMARY:{_escape(event.summary)}",
            *([f"LOCATION:{_escape(event.location)}"] if event.location else []),
            "END:VEVENT",
        ]
        place = len(lines) - 1 - lines[::-1].index("END:VCALENDAR")
        self._write([*lines[:place], *new, *lines[place:]])

    def _lines(self) -> list[str]:
        if not self._file.exists():
            return _EMPTY
        text = self._file.read_text("utf-8").replace("\r\n", "\n")
        lines = re.sub(r"\n[ \t]", "", text).splitlines()  # 3.1: long lines are folded
        if "END:VCALENDAR" not in lines:
            raise ValueError(f"{self._file.name} is no iCalendar file")
        return lines

    def _write(self, lines: list[str]) -> None:
        """The whole file at once: a crash leaves the old one or the new one."""
        text = "".join(f"{_fold(line)}\r\n" for line in lines)
        handle, name = tempfile.mkstemp(dir=self._file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._file)
        except OSError:
            with suppress(OSError):
                Path(name).unlink()
            raise


def parse(text: str) -> datetime:
    """A local time. Raises `ValueError` with how it is written."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None, second=0, microsecond=0)
    except ValueError:
        raise ValueError(f"{text!r} is no time; one is written as 2026-11-23T10:00") from None


def _events(lines: list[str]) -> Iterator[Event]:
    found: dict[str, str] | None = None
    for line in lines:
        name, _, value = line.partition(":")
        if line == "BEGIN:VEVENT":
            found = {}
        elif line == "END:VEVENT" and found is not None:
            if "RRULE" not in found and (event := _event(found)) is not None:
                yield event
            found = None
        elif found is not None:
            found.setdefault(name.partition(";")[0], value)


def _event(found: dict[str, str]) -> Event | None:
    try:
        times = [datetime.strptime(found[name].rstrip("Z"), _STAMP) for name in ("DTSTART", "DTEND")]
    except (KeyError, ValueError):
        return None
    begin, end = (time.isoformat(timespec="minutes") for time in times)
    return Event(_plain(found.get("SUMMARY", "")), begin, end, _plain(found.get("LOCATION", "")))


def _escape(text: str) -> str:
    for plain, escaped in (("\\", "\\\\"), (";", "\\;"), (",", "\\,"), ("\r", ""), ("\n", "\\n")):
        text = text.replace(plain, escaped)
    return text


def _plain(text: str) -> str:
    return re.sub(r"\\[nN,;\\]", lambda found: _ESCAPED[found[0]], text)


def _fold(line: str) -> str:
    """At most 75 bytes a line (3.1), characters kept whole."""
    parts, size = [""], 0
    for character in line:
        width = len(character.encode())
        if size + width > 74:
            parts.append("")
            size = 0
        parts[-1] += character
        size += width
    return "\r\n ".join(parts)

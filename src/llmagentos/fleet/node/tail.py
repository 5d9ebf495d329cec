"""Reading a run's event log while it is written."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from llmagentos.api.bounded import fit
from llmagentos.api.jobs import MAX_EVENTS, JobEvent, LogLine

BATCH_BYTES = 1024 * 1024
_LINE_BYTES = 512 * 1024  # well over what the runner writes: a longer line is not its work


class EventTail:
    """The events of `path` from number `first` on, in batches."""

    def __init__(self, path: Path, first: int) -> None:
        self._path = path
        self._first = first
        self._offset = 0
        self._line = 0  # lines consumed
        self._decoder = msgspec.json.Decoder(JobEvent)

    def read(self) -> list[JobEvent]:
        """The next whole lines as events; empty when there are none yet. Reading on forgets them."""
        found: list[JobEvent] = []
        size = 0
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return found
        with file:
            file.seek(self._offset)
            while len(found) < MAX_EVENTS and size < BATCH_BYTES:
                line = file.readline(_LINE_BYTES)
                if not line.endswith(b"\n") and len(line) < _LINE_BYTES:
                    break  # being written now, or cut off by the runner's end
                self._offset += len(line)
                self._line += 1
                if self._line >= self._first:
                    found.append(self._event(line))
                    size += len(line)
        return found

    def _event(self, line: bytes) -> JobEvent:
        try:
            event = self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            event = LogLine(seq=1, at=time.time(), level="warning", text=f"an event that cannot be read: {error}")
        return fit(msgspec.structs.replace(event, seq=self._line))

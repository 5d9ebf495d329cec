"""Batches on disk until the server acknowledged them: bounded, the oldest dropped and counted when full.

One file a batch, named by its number, written whole; so a node agent that is killed loses at most the batch that
it was about to write. Numbers go on where they were; a spool whose files are gone begins under a new name.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec

from llmagentos.api.telemetry import Batch, Line, Sample
from llmagentos.core import log, metrics
from llmagentos.core.files import write_whole
from llmagentos.core.ids import new_id

MAX_BYTES = 64 * 1024 * 1024
_NAME = "spool.id"
_log = log.get(__name__)


class Spool:
    """The batches in `directory`, at most `most` bytes of them."""

    def __init__(self, directory: Path, *, most: int = MAX_BYTES) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._most = most
        self._sizes = {int(path.stem): path.stat().st_size for path in directory.glob("*.batch") if path.stem.isdigit()}
        self.name, self._last = self._identity()
        self.dropped = 0
        """Batches that had to give way to newer ones, since the start."""

    def _identity(self) -> tuple[str, int]:
        path = self._directory / _NAME
        try:
            name, last = path.read_text().split()
            return name, max([int(last), *self._sizes])
        except (OSError, ValueError):
            for number in list(self._sizes):
                self._remove(number)
            name = new_id()
            write_whole(path, f"{name} 0\n".encode())
            return name, 0

    def __len__(self) -> int:
        return len(self._sizes)

    def put(self, samples: list[Sample], lines: list[Line]) -> None:
        """Keep a batch. Raises `OSError` when the disk is full."""
        self._last += 1
        batch = Batch(self.name, self._last, samples, lines)
        content = zlib.compress(msgspec.json.encode(batch), 1)
        write_whole(self._path(self._last), content)
        self._sizes[self._last] = len(content)
        while sum(self._sizes.values()) > self._most and len(self._sizes) > 1:
            self._remove(min(self._sizes))
            self.dropped += 1
            metrics.NODE_TELEMETRY_DROPPED.inc()

    def oldest(self) -> Batch | None:
        """The batch to send next; damaged ones are left out."""
        while self._sizes:
            number = min(self._sizes)
            try:
                content = zlib.decompress(self._path(number).read_bytes())
                return msgspec.json.decode(content, type=Batch)
            except (OSError, zlib.error, msgspec.MsgspecError) as error:
                _log.warning("a spooled batch cannot be read", number=number, error=str(error))
                self._remove(number)
        return None

    def acknowledged(self, number: int) -> None:
        """The server has it."""
        if len(self._sizes) == 1:  # the numbers must go on when no file is left to tell them
            write_whole(self._directory / _NAME, f"{self.name} {self._last}\n".encode())
        self._remove(number)

    def _remove(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)
        self._sizes.pop(number, None)

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:012}.batch"

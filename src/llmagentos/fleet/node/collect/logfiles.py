"""Tails files: from their end at first sight, through rotation by renaming and by truncation, on from where it was."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from glob import iglob
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from llmagentos.api.telemetry import MAX_LINE, MAX_LINES
from llmagentos.core.files import write_whole
from llmagentos.fleet.node.collect.wanted import Log

MAX_OPEN = 256
_PIECE = 256 * 1024
_SIBLINGS = 1000


@dataclass(slots=True)
class _Tail:
    source: str
    file: BinaryIO
    inode: int
    offset: int
    """Up to here lines were given out."""


class Position(msgspec.Struct, frozen=True, array_like=True):
    """How far a file was read."""

    inode: int
    offset: int


class LogFiles:
    """Reads the files of all sources; `save` keeps how far, for the next start."""

    def __init__(self, positions: Path) -> None:
        self._positions = positions
        self._tails: dict[str, _Tail] = {}
        self._known = self._load()
        self._fresh = not self._known
        """At the very first start files are read from their end; one that appears later from its begin."""

    def _load(self) -> dict[str, Position]:
        try:
            return msgspec.json.decode(self._positions.read_bytes(), type=dict[str, Position])
        except (OSError, msgspec.MsgspecError):
            return {}

    def want(self, logs: Mapping[str, Log]) -> None:
        """Read the files of these sources and no others. Looks for new ones."""
        wanted = dict(islice(((path, name) for name, log in logs.items() for path in _paths(log)), MAX_OPEN))
        for path in [path for path, tail in self._tails.items() if wanted.get(path) != tail.source]:
            self._tails.pop(path).file.close()
        for path, source in wanted.items():
            if path not in self._tails and (tail := self._opened(path, source, at_end=self._fresh)) is not None:
                self._tails[path] = tail
        self._fresh = self._fresh and not wanted

    def _opened(self, path: str, source: str, *, at_end: bool) -> _Tail | None:
        known = self._known.get(path)
        file = _open(path)
        if file is None:
            return None
        stat = os.fstat(file.fileno())
        if known is not None and known.inode == stat.st_ino:
            return _Tail(source, file, stat.st_ino, min(known.offset, stat.st_size))
        if known is not None and (before := _renamed(path, known.inode)) is not None:
            file.close()  # it was renamed while nobody looked: that file to its end first
            return _Tail(source, before, known.inode, known.offset)
        return _Tail(source, file, stat.st_ino, stat.st_size if at_end and known is None else 0)

    def read(self, most: int = MAX_LINES) -> Iterator[tuple[str, str]]:
        """Up to `most` new lines as (source, text)."""
        for path, tail in list(self._tails.items()):
            for line in self._lines(tail, most):
                most -= 1
                yield tail.source, line
            if most <= 0:
                return
            if self._rotated(path, tail):
                tail.file.close()
                self._known.pop(path, None)
                if (again := self._opened(path, tail.source, at_end=False)) is None:
                    del self._tails[path]
                else:
                    self._tails[path] = again

    def _lines(self, tail: _Tail, most: int) -> Iterator[str]:
        try:
            if os.fstat(tail.file.fileno()).st_size < tail.offset:
                tail.offset = 0  # truncated in place
            tail.file.seek(tail.offset)
            piece = tail.file.read(_PIECE)
        except OSError:
            return
        begin = 0
        while most > 0 and (end := piece.find(b"\n", begin)) >= 0:
            yield piece[begin:end].decode("utf-8", "replace")[:MAX_LINE]
            begin, most = end + 1, most - 1
        if begin == 0 and len(piece) == _PIECE:  # one line without an end: its begin is all that is kept
            yield piece.decode("utf-8", "replace")[:MAX_LINE]
            begin = len(piece)
        tail.offset += begin

    def _rotated(self, path: str, tail: _Tail) -> bool:
        try:
            if Path(path).stat().st_ino == tail.inode:
                return False
            return os.fstat(tail.file.fileno()).st_size <= tail.offset or not _more(tail)
        except OSError:
            return True

    def save(self) -> None:
        """Keep how far every file was read. Raises `OSError`."""
        now = {path: Position(tail.inode, tail.offset) for path, tail in self._tails.items()}
        if now != self._known:
            write_whole(self._positions, msgspec.json.encode(now))
            self._known = now

    def close(self) -> None:
        """Close all files."""
        for tail in self._tails.values():
            tail.file.close()
        self._tails.clear()


def _paths(log: Log) -> Iterator[str]:
    for pattern in log.files:
        found = islice(iglob(pattern), MAX_OPEN)  # noqa: PTH207 - absolute patterns, which Path.glob does not take
        yield from sorted(path for path in found if Path(path).is_file())


def _open(path: str) -> BinaryIO | None:
    try:
        return Path(path).open("rb")
    except OSError:
        return None


def _renamed(path: str, inode: int) -> BinaryIO | None:
    """The file with this inode under a name that begins as `path` does."""
    place = Path(path)
    try:
        with os.scandir(place.parent) as entries:
            for entry in islice(entries, _SIBLINGS):
                if entry.inode() == inode and entry.name.startswith(place.name):
                    return _open(entry.path)
    except OSError:
        return None
    return None


def _more(tail: _Tail) -> bool:
    tail.file.seek(tail.offset)
    return b"\n" in tail.file.read(_PIECE)

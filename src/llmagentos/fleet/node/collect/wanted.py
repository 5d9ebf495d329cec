"""What is collected beside the machine's own values: files in `collect.d`, put there by playbooks.

every: 15
probes:
  jobs_waiting: {command: "redis-cli llen jobs", every: 30, timeout: 5}
logs:
  nginx: {files: [/var/log/nginx/*.log]}
  ssh: {journal: ssh.service}
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, inspect

from llmagentos.core import log
from llmagentos.core.config import document
from llmagentos.core.errors import ConfigError

MAX_FILES, MAX_ENTRIES = 64, 64
MEASURE_S = 15.0
_log = log.get(__name__)
Name = Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,62}$")]


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shell command that prints a number, or lines of Prometheus' text format."""

    command: Annotated[str, Meta(min_length=1, max_length=4096)]
    every: Annotated[float, Meta(ge=1, le=86_400)] = 60
    """Seconds from one begin to the next."""
    timeout: Annotated[float, Meta(gt=0, le=3600)] = 10


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Files by globs, or a unit of the journal (`*`: all of it)."""

    files: Annotated[list[str], Meta(max_length=64)] = []
    journal: Annotated[str, Meta(max_length=255)] | None = None


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of `collect.d`, or all of them together."""

    every: Annotated[float, Meta(ge=1, le=3600)] = MEASURE_S
    """Seconds from one measurement to the next; of several files the least counts."""
    probes: Annotated[dict[Name, Probe], Meta(max_length=MAX_ENTRIES)] = {}
    logs: Annotated[dict[Name, Log], Meta(max_length=MAX_ENTRIES)] = {}


_WANTED = inspect.type_info(Wanted)


def parse(path: Path) -> Wanted:
    """The file `path`. Raises `ConfigError` with every fault as file:line."""
    node = document.compose(document.read_text(path), path.name)
    if node is None:
        return Wanted()
    checker = document.Checker(path.parent)
    value = checker.check(node, _WANTED)
    if checker.faults:
        raise document.InvalidDocument.of(path.name, checker.faults)
    found: Wanted = document.decode(value, Wanted)
    return found


class Directory:
    """`collect.d`, read again when a file in it changed; a faulty file is told once and left out."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[Path, tuple[int, int]] = {}
        self._wanted = Wanted()
        self.faults = 0
        """Files that are left out."""

    def read(self) -> Wanted:
        """All that is wanted now; of entries with one name the one in the last file counts."""
        paths = sorted(path for path in self._directory.glob("*.y*ml") if path.suffix in (".yaml", ".yml"))[:MAX_FILES]
        seen = {path: (stat.st_mtime_ns, stat.st_size) for path in paths if (stat := _stat(path)) is not None}
        if seen != self._seen:
            self._seen = seen
            self._wanted = self._merged(list(seen))
        return self._wanted

    def _merged(self, paths: list[Path]) -> Wanted:
        probes: dict[str, Probe] = {}
        logs: dict[str, Log] = {}
        every: list[float] = []
        self.faults = 0
        for path in paths:
            try:
                found = parse(path)
            except (ConfigError, ValueError, OSError) as error:
                self.faults += 1
                _log.error("collect.d: file left out", file=path.name, error=str(error))
                continue
            every.append(found.every)
            probes |= found.probes
            logs |= found.logs
        return Wanted(min(every, default=MEASURE_S), probes, logs)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None

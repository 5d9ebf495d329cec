"""Module units: what playbooks put into `modules.d` to have a module kept running."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, inspect

from llmagentos.core.config import document
from llmagentos.core.errors import ConfigError

MAX_UNITS = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PIECE = 1024 * 1024


class Unit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One module: `modules.d/NAME.yaml`."""

    command: Annotated[list[str], Meta(min_length=1)]
    """Program and arguments."""
    env: dict[str, str] = {}
    workdir: str | None = None
    """Where it runs; relative to `modules.d`. Without one: there."""
    watch: list[str] = []
    """Files, relative to `workdir`, whose change restarts it."""


_UNIT = inspect.type_info(Unit)


def parse(path: Path) -> Unit:
    """The unit in the file `path`. Raises `ConfigError` with every fault as file:line."""
    if not _NAME.fullmatch(path.stem):
        raise ConfigError(f"{path.name}: a module's name has letters, digits, dots, dashes and underscores, up to 63")
    node = document.compose(document.read_text(path), path.name)
    if node is None:
        raise ConfigError(f"{path.name}: the file is empty; it needs at least `command: [PROGRAM, ...]`")
    checker = document.Checker(path.parent)
    value = checker.check(node, _UNIT)
    if checker.faults:
        raise document.InvalidDocument.of(path.name, checker.faults)
    unit: Unit = document.decode(value, Unit)
    return unit


@dataclass(frozen=True, slots=True)
class Wanted:
    """What should run under a name: a unit, or why there is none; `version` changes with all that it depends on."""

    name: str
    version: str
    unit: Unit | None = None
    fault: str | None = None
    directory: Path | None = None


class Scanner:
    """Looks at a directory of units. File contents are read again only when size, time or inode changed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._hashes: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def scan(self) -> dict[str, Wanted]:
        """All units by name."""
        paths = sorted(path for path in self._directory.glob("*.y*ml") if path.suffix in (".yaml", ".yml"))[:MAX_UNITS]
        found = {path.stem: self._wanted(path) for path in paths}
        self._hashes = {path: seen for path, seen in self._hashes.items() if path.exists()}
        return found

    def _wanted(self, path: Path) -> Wanted:
        version = self._hash(path)
        try:
            unit = parse(path)
        except (ConfigError, ValueError) as error:
            return Wanted(path.stem, version, fault=str(error))
        directory = self._directory / (unit.workdir or ".")
        watched = "".join(self._hash(watched) for watched in _watched(unit, directory))
        return Wanted(path.stem, hashlib.sha256((version + watched).encode()).hexdigest(), unit, None, directory)

    def _hash(self, path: Path) -> str:
        try:
            stat = path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if (known := self._hashes.get(path)) is not None and known[0] == seen:
                return known[1]
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
        except OSError as error:
            return f"[{error.strerror}]"
        self._hashes[path] = (seen, digest.hexdigest())
        return self._hashes[path][1]


def _watched(unit: Unit, directory: Path) -> Iterator[Path]:
    return (directory / watched for watched in unit.watch)

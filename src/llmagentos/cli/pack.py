"""Packs a playbook's directory for the nodes: the same files give the same bytes, so nothing is sent twice."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmagentos.core.errors import InvalidInput, TooLarge
from llmagentos.core.i18n import tr

MAX_BYTES = 32 * 1024 * 1024
MAX_FILES = 20_000
IGNORED = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        ".llmagentos",
        ".venv",
        "venv",
        "node_modules",
        "__pycache__",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".hypothesis",
        ".tox",
        ".cache",
    }
)
IGNORED_ENDS = (".pyc", ".retry")


def pack(
    directory: Path, *, more: Mapping[str, Path] | None = None, prefix: str = "", most: int = MAX_BYTES
) -> tuple[str, bytes]:
    """SHA-256 and bytes of a tar.gz of `directory`, below `prefix`, without what `IGNORED` and `IGNORED_ENDS` name.

    `more` are files and directories from elsewhere, by their path inside. Raises `TooLarge`, `InvalidInput`.
    """
    packed = io.BytesIO()
    # Level 1: this is for a limit and a network, and the user waits. No time stamps: see above.
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for count, (name, path) in enumerate(_all(directory, prefix, more or {}), 1):
            if count > MAX_FILES:
                raise _too_large(directory, tr("over {count} files", count=MAX_FILES))
            _add(archive, name, path)
            if packed.tell() > most:
                raise _too_large(directory, tr("over {size} MiB packed", size=most // 1024**2))
    content = packed.getvalue()
    if len(content) > most:
        raise _too_large(directory, tr("over {size} MiB packed", size=most // 1024**2))
    return hashlib.sha256(content).hexdigest(), content


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = found.st_size, found.st_mode & 0o777
            archive.addfile(entry, file)
    except (OSError, tarfile.TarError) as error:
        raise InvalidInput(
            tr("{path} cannot be packed: {error}", path=path, error=error),
            hint=tr("the directory of the playbook goes to the nodes: all of it has to be readable"),
        ) from None


def _all(directory: Path, below: str, more: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    yield from ((f"{below}/{name}" if below else name, file) for name, file in _files(directory))
    for prefix, path in more.items():
        if path.is_dir():
            yield from ((f"{prefix}/{name}", file) for name, file in _files(path))
        else:
            yield prefix, path


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Path inside and real path of every regular file, sorted; links to files count as what they point to."""
    for root, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if name not in IGNORED)
        for name in sorted(names):
            path = Path(root) / name
            if path.is_file() and not name.endswith(IGNORED_ENDS):
                yield path.relative_to(directory).as_posix(), path


def _too_large(directory: Path, why: str) -> TooLarge:
    return TooLarge(
        tr("the playbook's directory {path} is too large: {why}", path=str(directory), why=why),
        hint=tr("put the playbook into a directory with only what it needs"),
    )

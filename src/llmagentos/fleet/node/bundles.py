"""Unpacking a bundle: an archive made elsewhere, so nothing in it is believed.

Only files, directories and links that stay inside come out; names, number and size are bounded, and
so is what is read from the compressed stream.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from llmagentos.fleet.playbooks.bundle import BadBundle

MAX_BYTES = 256 * 1024 * 1024
"""Of the unpacked stream."""
MAX_MEMBERS = 20_000
_PIECE = 1024 * 1024


def unpack(content: bytes, digest: str, target: Path, *, most_bytes: int = MAX_BYTES) -> None:
    """Unpack the tar.gz `content` into the new directory `target`. Raises `BadBundle`, `OSError`."""
    if (found := hashlib.sha256(content).hexdigest()) != digest:
        raise BadBundle(f"the bundle is damaged: its SHA-256 is {found}, not {digest}")
    target.mkdir(mode=0o700)
    links: list[tuple[Path, str]] = []
    try:
        with tarfile.open(fileobj=_Bounded(content, most_bytes), mode="r|") as archive:
            for member in _bounded(archive):
                _extract(archive, member, target, links)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, UnicodeError) as error:
        raise BadBundle(f"the bundle is not a tar.gz archive: {error}") from None
    _link(target, links)


def _bounded(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for number, member in enumerate(archive):
        if number >= MAX_MEMBERS:
            raise BadBundle(f"the bundle has over {MAX_MEMBERS} entries")
        yield member


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, links: list[tuple[Path, str]]) -> None:
    path = target / _inside(member.name)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
    elif member.isreg():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(archive, member, path)
    elif member.issym():
        links.append((path, member.linkname))
    else:
        raise BadBundle(f"the bundle holds {member.name!r}, which is no file, directory or symbolic link")


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise BadBundle(f"the bundle holds {name!r}, which leads out of it")
    return path


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = archive.extractfile(member)
    assert source is not None  # it is a regular file
    mode = 0o755 if member.mode & 0o100 else 0o644  # no set-uid bits from elsewhere
    try:
        # No link exists yet (they are made last), so nothing can lead this out of the directory.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise BadBundle(f"the bundle holds {member.name!r} twice") from None
    with os.fdopen(descriptor, "wb") as file:
        while piece := source.read(_PIECE):
            file.write(piece)


def _link(target: Path, links: list[tuple[Path, str]]) -> None:
    """Make the links, then look where each really leads: only all of them together decide that."""
    for path, to in links:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.symlink_to(to)
        except FileExistsError:
            raise BadBundle(f"the bundle holds {str(path.relative_to(target))!r} twice") from None
    root = os.path.realpath(target)
    for path, to in links:
        if not _leads_inside(path, root):
            for made, _ in links:
                made.unlink()
            raise BadBundle(f"the bundle's link {str(path.relative_to(target))!r} -> {to!r} leads out of it")


def _leads_inside(path: Path, root: str) -> bool:
    found = os.path.realpath(path)
    return found == root or found.startswith(root + os.sep)


class _Bounded(io.RawIOBase):
    """The decompressed stream, up to a limit: a few kilobytes can stand for gigabytes."""

    def __init__(self, content: bytes, limit: int) -> None:
        self._stream = gzip.GzipFile(fileobj=io.BytesIO(content))
        self._limit = limit
        self._read = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(_PIECE if size < 0 else min(size, _PIECE))
        self._read += len(piece)
        if self._read > self._limit:
            raise BadBundle(f"the bundle unpacks to over {self._limit} bytes")
        return piece

"""A playbook's directory as a tar.gz: what is in it, read in memory and within bounds.

Only regular files and directories with paths below the root are taken, so that unpacking one can
never write elsewhere.
"""

from __future__ import annotations

import gzip
import io
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping

from llmagentos.core.errors import InvalidInput

MAX_FILES = 20_000
MAX_UNPACKED = 512 * 1024 * 1024
_KEPT_SUFFIXES = (".yml", ".yaml", ".json", ".cfg")
_KEPT_BYTES = 1024 * 1024 + 1
_TEMPLATE_BYTES = 256 * 1024
_OF_OTHERS = re.compile(rb"\{[{%][^\0]*\b(?:hostvars|play_hosts|ansible_(?:play|current|failed)_\w+)\b")


class BadBundle(InvalidInput):
    """The bundle is not a tar.gz that we take."""

    code = "bad_bundle"


class Files(Mapping[str, bytes]):
    """Paths of all files; the content only of YAML, JSON and configuration files and of templates that name other
    hosts (others read as empty).
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = dict(files)

    def __getitem__(self, path: str) -> bytes:
        return self._files[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def read(content: bytes) -> Files:
    """What is in a bundle. Raises `BadBundle`."""
    found: dict[str, bytes] = {}
    size = 0
    try:
        with tarfile.open(fileobj=_Bounded(content), mode="r|") as archive:
            for count, member in enumerate(archive, 1):
                if count > MAX_FILES:
                    raise BadBundle(f"the bundle holds over {MAX_FILES} files")
                size += member.size
                if size > MAX_UNPACKED:
                    raise BadBundle(f"the bundle unpacks to over {MAX_UNPACKED // 1024**2} MiB")
                path = _safe(member)
                if member.isfile():
                    found[path] = _content(archive, member, path)
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise BadBundle(f"the bundle is not a tar.gz: {error}", hint="`llmctl run` makes one") from None
    return Files(found)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        return b""
    if path.endswith(_KEPT_SUFFIXES):
        return file.read(_KEPT_BYTES)
    if member.size > _TEMPLATE_BYTES:
        return b""
    content = file.read()
    return content if _OF_OTHERS.search(content) else b""


def _safe(member: tarfile.TarInfo) -> str:
    path = posixpath.normpath(member.name)
    if member.name.startswith("/") or path.split("/")[0] == ".." or "\0" in path:
        raise BadBundle(f"the bundle's {member.name[:80]!r} is outside of it")
    if not (member.isreg() or member.isdir()):
        raise BadBundle(f"the bundle's {member.name[:80]!r} is neither a file nor a directory")
    return path


class _Bounded(io.RawIOBase):
    """Decompresses as it is read, and stops a bomb."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._gzip = gzip.GzipFile(fileobj=io.BytesIO(content))
        self._left = MAX_UNPACKED + MAX_FILES * 1024

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._gzip.read(size if 0 <= size < 1 << 20 else 1 << 20)
        self._left -= len(data)
        if self._left < 0:
            raise BadBundle(f"the bundle unpacks to over {MAX_UNPACKED // 1024**2} MiB")
        return data

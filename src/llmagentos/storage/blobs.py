"""Blobs named by the SHA-256 of their bytes, as files below one directory.

A blob is on the disk, with its name, before `put` returns: written beside, fsynced, renamed, and the
directory fsynced. A reader therefore sees all of it or nothing. Storing it again is free. What nobody
refers to any more goes by `prune`, but not within a grace time: its reference may be about to be made.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import time
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

from llmagentos.core.errors import InvalidInput
from llmagentos.core.ids import new_id
from llmagentos.storage.database import StorageFull

_DIGEST = re.compile(r"[0-9a-f]{64}")
GRACE_S = 3600.0
RECENT_BYTES = 16 * 1024 * 1024
"""Blobs that were read last are kept in memory up to so much."""


class Blobs:
    """The blobs below `directory`, which is made when the first one comes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._recent: dict[str, bytes] = {}

    def path(self, digest: str) -> Path:
        """Where the blob is or would be. Raises `InvalidInput` for what is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise InvalidInput(f"{digest[:80]!r} is not a SHA-256 in 64 hexadecimal digits")
        return self._directory / digest[:2] / digest

    async def put(self, digest: str, content: bytes) -> None:
        """Store `content`. Raises `InvalidInput` when its SHA-256 is another, `StorageFull`."""
        await asyncio.to_thread(self._put, digest, content)

    async def touch(self, digest: str) -> int | None:
        """Bytes of the blob, whose grace time begins anew; None when there is none."""
        path = self.path(digest)
        try:
            await asyncio.to_thread(os.utime, path)
            return (await asyncio.to_thread(path.stat)).st_size
        except FileNotFoundError:
            return None

    async def get(self, digest: str) -> bytes | None:
        """The blob; None when there is none. What many ask for at the same time is read once."""
        if (known := self._recent.get(digest)) is not None:
            return known
        try:
            content = await asyncio.to_thread(self.path(digest).read_bytes)
        except FileNotFoundError:
            return None
        if len(content) <= RECENT_BYTES // 4:
            self._recent[digest] = content
            while sum(map(len, self._recent.values())) > RECENT_BYTES:
                del self._recent[next(iter(self._recent))]
        return content

    async def prune(self, kept: Container[str], *, grace: float = GRACE_S) -> int:
        """Delete what is not in `kept` and was not stored again within `grace` seconds; how many."""
        self._recent.clear()
        return await asyncio.to_thread(self._prune, kept, grace)

    def _put(self, digest: str, content: bytes) -> None:
        final = self.path(digest)
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise InvalidInput(f"the content's SHA-256 is {found}, not {digest}", hint="was the upload cut short?")
        with suppress(FileNotFoundError):
            os.utime(final)
            return
        final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = final.with_name(f".{new_id()}")
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(final)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(
                    f"no room for {len(content)} bytes: the disk is full",
                    hint="free space on the disk of the state directory; what was acknowledged before is safe",
                ) from None
            raise
        finally:
            beside.unlink(missing_ok=True)
        for directory in (final.parent, self._directory):
            _sync(directory)

    def _prune(self, kept: Container[str], grace: float) -> int:
        limit = time.time() - grace
        count = 0
        for path in self._directory.glob("??/*"):
            with suppress(FileNotFoundError):
                if path.name not in kept and path.stat().st_mtime < limit:
                    path.unlink()
                    count += 1
        return count


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

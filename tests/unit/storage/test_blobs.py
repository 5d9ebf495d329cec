"""Content-addressed files."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os

import pytest

from llmagentos.core.errors import InvalidInput
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import StorageFull

CONTENT = b"some bytes"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def test_what_is_put_is_there_and_private(tmp_path):
    blobs = Blobs(tmp_path / "blobs")
    assert asyncio.run(blobs.get(DIGEST)) is None
    assert asyncio.run(blobs.touch(DIGEST)) is None
    for _ in range(2):
        asyncio.run(blobs.put(DIGEST, CONTENT))
    assert asyncio.run(blobs.get(DIGEST)) == CONTENT
    assert asyncio.run(blobs.touch(DIGEST)) == len(CONTENT)
    assert blobs.path(DIGEST).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == [DIGEST]


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_digests_are_names(tmp_path, digest):
    with pytest.raises(InvalidInput):
        asyncio.run(Blobs(tmp_path).put(digest, CONTENT))


def test_other_content_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(InvalidInput, match="SHA-256"):
        asyncio.run(Blobs(tmp_path).put("0" * 64, CONTENT))
    assert list(tmp_path.rglob("*")) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    blobs = Blobs(tmp_path)
    with pytest.raises(StorageFull, match="disk is full"):
        asyncio.run(blobs.put(DIGEST, CONTENT))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_nobody_refers_to_goes_after_a_grace_time(tmp_path):
    blobs = Blobs(tmp_path)
    asyncio.run(blobs.put(DIGEST, CONTENT))
    assert asyncio.run(blobs.prune(set())) == 0
    os.utime(blobs.path(DIGEST), (0, 0))
    assert asyncio.run(blobs.prune({DIGEST})) == 0
    asyncio.run(blobs.touch(DIGEST))
    assert asyncio.run(blobs.prune(set())) == 0, "asked for a moment ago"
    os.utime(blobs.path(DIGEST), (0, 0))
    assert asyncio.run(blobs.prune(set())) == 1
    assert asyncio.run(blobs.get(DIGEST)) is None

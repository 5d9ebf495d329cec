"""Bounded logs of the children: a file over its size is copied aside and cut to nothing.

The children hold their log open for appending, so it cannot be renamed from under them. What is
written between the copy and the cut (well under a millisecond) is lost; a log that fills the disk
would lose more.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path


def rotate(log: Path, *, most_bytes: int, files: int) -> bool:
    """Move the content of `log` to `log.1` (older ones to `.2`... up to `files`) once it is over `most_bytes`.

    False when there is nothing to do, or when it cannot be done now (no room for the copy): then all stays as it is.
    """
    copy = log.with_name(f"{log.name}.new")
    try:
        if log.stat().st_size <= most_bytes:
            return False
        shutil.copyfile(log, copy)
        copy.chmod(0o600)
    except OSError:
        with suppress(OSError):
            copy.unlink()
        return False
    for number in range(files - 1, 0, -1):
        older = numbered(log, number)
        if older.exists():
            older.replace(numbered(log, number + 1))
    copy.replace(numbered(log, 1))
    os.truncate(log, 0)
    return True


def numbered(log: Path, number: int) -> Path:
    """The name of the rotated log `number`, 1 being the newest."""
    return log.with_name(f"{log.name}.{number}")

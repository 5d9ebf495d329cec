# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""What `ps` shows of a fork: the arguments of its program, written over (proc(5), arg_start and arg_end)."""

from __future__ import annotations

import ctypes
from pathlib import Path

ROOM = 512
"""Bytes that a program must have in its arguments for this to have room; see `padding`."""


def padding() -> str:
    """An argument that means nothing, for a program whose forks get titles."""
    return "-" * ROOM


def write(title: str) -> None:
    """Show `title` instead of the program's arguments; cut to the room that there is. Does nothing but on Linux."""
    try:
        fields = Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
    except (OSError, IndexError, ValueError):
        return
    room = end - start
    if start <= 0 or room < 2:
        return
    text = title.encode("utf-8", "surrogateescape")[: room - 2]
    # The kernel shows the text up to its first NUL when the very last byte is none (get_mm_cmdline).
    ctypes.memmove(start, text + b"\0" * (room - 1 - len(text)) + b" ", room)

"""Processes that a killed supervisor left: ended before new ones start on the same state."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import psutil

from llmagentos.core.state import StateDirectory

GRACE_S = 4.0


async def end(state: StateDirectory) -> list[str]:
    """End what still runs of the last supervisor's children; the names of those that did."""
    found = dict(_left(state))
    for process in found.values():
        _try(process.terminate)
    await asyncio.to_thread(psutil.wait_procs, list(found.values()), GRACE_S)
    for process in found.values():
        if process.is_running():
            _try(process.kill)
    await asyncio.to_thread(psutil.wait_procs, list(found.values()), 1.0)
    return sorted(found)


def clear(state: StateDirectory) -> None:
    """Remove sockets and notes that were true only while the last supervisor ran."""
    for entry in state.run.iterdir():
        if not entry.is_dir() or entry.is_symlink():
            entry.unlink()


def _left(state: StateDirectory) -> list[tuple[str, psutil.Process]]:
    found = []
    for child in state.recorded():
        if child.pid is None:
            continue
        try:
            process = psutil.Process(child.pid)
            ours = process.environ().get("LLMAGENTOS_STATE")
        except psutil.Error:
            continue
        # A process id is used again: only one that was started for this state directory is ours to end.
        if ours is not None and Path(ours) == state.root and process.pid != os.getpid():
            found.append((child.name, process))
    return found


def _try(action: Callable[[], None]) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return

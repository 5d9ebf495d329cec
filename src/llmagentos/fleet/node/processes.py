"""Processes that are not our children: found again, and ended with all that they started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import psutil


def alive(pid: int, start: int) -> bool:
    """Whether the process `pid` that started at tick `start` (proc(5), field 22) still runs.

    Process ids are used again and wall clocks jump; ticks since boot do neither.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists() and psutil.pid_exists(pid)  # not Linux: the id has to do
    except ProcessLookupError:
        return False
    return fields[0] not in ("Z", "X") and int(fields[19]) == start


async def ended(pid: int, start: int, *, within: float) -> None:
    """Wait for the end of a process that is none of our children (see `alive`), at most `within` seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or it has ended
        descriptor = -1
    if descriptor < 0:
        await asyncio.sleep(within if alive(pid, start) else 0)
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, gone.set)
    try:
        if alive(pid, start):  # the descriptor is of this very process: looked at only now that it is open
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), within)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def of_run(directory: Path) -> list[psutil.Process]:
    """The processes that hold the lock of a job directory (its runner and their forks) and all they started."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and _belongs(process, directory):
            found[process.pid] = process
            for child in _children(process):
                found[child.pid] = child
    return list(found.values())


def _belongs(process: psutil.Process, directory: Path) -> bool:
    try:
        lock = (directory / "lock").stat()
        numbers = [entry.name for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
    except OSError:  # it has ended, it is another user's, or this is not Linux
        return [*(process.info["cmdline"] or ())][-2:] == ["llmagentos_ansible", str(directory)]
    return any(_holds(process.pid, number, lock) for number in numbers)


def _holds(pid: int, number: str, lock: os.stat_result) -> bool:
    """Whether the descriptor is the lock's file and has it locked; others only look at it (proc(5), fdinfo)."""
    try:
        if not os.path.samestat(Path(f"/proc/{pid}/fd/{number}").stat(), lock):
            return False
        return "FLOCK" in Path(f"/proc/{pid}/fdinfo/{number}").read_text()
    except OSError:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def interrupt(pid: int) -> None:
    """Ask the runner to end: ansible-core passes it on to its workers and removes temporary files."""
    _send(pid, signal.SIGINT)


def kill(processes: Iterable[psutil.Process]) -> None:
    """End the processes at once. psutil never signals a process that got an old one's id."""
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue  # it ended by itself, or became another user's


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return

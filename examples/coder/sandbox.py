"""Runs somebody's code with its tests in a process of its own that can do as little as possible.

What always holds: an empty environment, a directory of its own that goes afterwards, limits on processor
and wall time, memory, size of files and open files. Where Linux permits namespaces, it also has no network,
sees no other process, and sees no file but the system's libraries and Python's, read-only; processes are
counted. A result says which of these it had (`isolation`) and which not (`missing`).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

CONFINED = Path(__file__).with_name("confined.py")
NAMESPACES = ["--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child"]
EVERYWHERE = ["environment", "time", "memory", "file sizes"]
WITH_NAMESPACES = ["network", "files", "processes"]
FIRST_USER = 1_000_000_000
"""Where the numbers begin of users that nobody else is."""
_SHOWN = 4000  # characters of output


@dataclass(frozen=True)
class Limits:
    """What one check may use."""

    wall_s: float = 10.0
    cpu_s: int = 5
    memory: int = 256 * 1024 * 1024  # bytes of address space, of each process
    file: int = 1024 * 1024  # bytes of one file, its output included
    disk: int = 8 * 1024 * 1024  # bytes of all files (with namespaces)
    open_files: int = 32
    processes: int = 8  # with namespaces


@dataclass(frozen=True)
class Check:
    """How a check ended: `passed`, `failed`, `no_tests`, `time`, `cpu`, `killed`, or `unusable` (the sandbox)."""

    outcome: str
    tests: int
    output: str
    seconds: float
    isolation: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there were tests and all of them passed."""
        return self.outcome == "passed"


@cache
def namespaces() -> tuple[str, ...]:
    """The command that starts a program in namespaces of its own; empty where that is not permitted."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    command = [unshare, *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), *NAMESPACES, "--"]
    try:
        tried = subprocess.run([*command, *_program("--try")], capture_output=True, env={}, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(command) if tried.returncode == 0 else ()


def check(code: str, tests: str, limits: Limits | None = None) -> Check:
    """Run `tests`, which see the names that `code` defines: statements, and functions `test_...` without arguments."""
    limits = limits or Limits()
    prefix = namespaces()
    missing = [] if prefix else WITH_NAMESPACES
    with tempfile.TemporaryDirectory(prefix="check-") as directory, tempfile.TemporaryFile() as output:
        place = {"directory": None if prefix else directory, "user": FIRST_USER + secrets.randbelow(1_000_000_000)}
        spec = {"code": code, "tests": tests, **place, **vars(limits)}
        begun = time.monotonic()
        status = _run([*prefix, *_program()], json.dumps(spec).encode(), output, limits.wall_s, directory)
        seconds = time.monotonic() - begun
        output.seek(0)
        text = output.read(limits.file).decode("utf-8", "replace")
    told, count = _summary(text)
    isolation = [name for name in EVERYWHERE + WITH_NAMESPACES if name not in missing]
    return Check(_outcome(status, count), count or 0, told[-_SHOWN:], round(seconds, 3), isolation, missing)


def _program(*arguments: str) -> list[str]:
    # Isolated and without site-packages; a virtual environment's Python is the one that it was made from.
    return [
        str(Path(getattr(sys, "_base_executable", sys.executable)).resolve()),
        "-I",
        "-S",
        str(CONFINED),
        *arguments,
    ]


def _run(argv: list[str], spec: bytes, output: IO[bytes], wall_s: float, directory: str) -> int | None:
    """The exit status; None when its time was over."""
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=output, stderr=output, env={}, cwd=directory, start_new_session=True
    )
    try:
        process.communicate(spec, timeout=wall_s)
    except subprocess.TimeoutExpired:
        return None
    except BrokenPipeError:
        process.wait(wall_s)
    finally:
        _end(process)
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """All of its session: what it left behind too."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _summary(text: str) -> tuple[str, int | None]:
    """What was printed, and how many tests ran to their end."""
    head, _, last = text.rstrip("\n").rpartition("\n")
    if last.startswith("tests passed: ") and last[14:].isdecimal():
        return head, int(last[14:])
    return text, None


def _outcome(status: int | None, count: int | None) -> str:
    if status is None:
        return "time"
    if status == 0 and count is not None:
        return "passed" if count else "no_tests"
    if status == 128 + signal.SIGXCPU:
        return "cpu"
    if status == 125:
        return "unusable"
    return "killed" if status > 128 or status < 0 else "failed"

"""The state directory: its layout, its rights, and the lock that says who works on it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from llmagentos.core import clock
from llmagentos.core.discovery import CREDENTIALS
from llmagentos.core.errors import Conflict, OperatorError

_WRITTEN_S = 5.0
"""Who takes the lock says who it is within an instant; within this on the slowest machine."""


class StateUnusable(OperatorError):
    """The state directory cannot be used as it is."""

    code = "state_unusable"
    exit_code = 2


class StateTaken(Conflict):
    """Another process works on this state directory."""

    code = "state_taken"
    exit_code = 1


class Holder(msgspec.Struct, frozen=True):
    """Who works on a state directory: process id, the server's origin, start as wall-clock seconds."""

    pid: int
    address: str
    started: float


class ChildStatus(msgspec.Struct, frozen=True):
    """One process of the system, as the supervisor last knew it. Times are wall-clock seconds."""

    name: str
    state: Literal["starting", "running", "restarting", "stopped"]
    pid: int | None = None
    started: float | None = None
    restarts: int = 0
    last_exit: str | None = None


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Where each thing stands below the state directory `root`."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held (flock) by the supervisor while it runs; says who it is."""
        return self.root / "up.lock"

    @property
    def credentials(self) -> Path:
        """The admin's credentials, 0600."""
        return self.root / CREDENTIALS

    @property
    def database(self) -> Path:
        """The SQLite file, unless the configuration names another database."""
        return self.root / "llmagentos.db"

    @property
    def keys(self) -> Path:
        """Signing keys."""
        return self.root / "keys"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Sockets and what is true only while it runs; emptied at start."""
        return self.root / "run"

    @property
    def children(self) -> Path:
        """What the supervisor knows of its children, as JSON."""
        return self.run / "children.json"

    @property
    def node(self) -> Path:
        """The local node agent's own state directory."""
        return self.root / "node"

    def prepare(self) -> None:
        """Make what is missing, all of it for the owner only. Raises `StateUnusable`."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.check()
            for directory in (self.logs, self.run, self.keys):
                directory.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise unusable(self.root, error) from None

    def check(self) -> None:
        """Raises `StateUnusable` when others can get at the directory: it holds tokens and keys."""
        found = self.root.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise StateUnusable(f"{str(self.root)!r} is not a directory")
        if found.st_uid != os.geteuid():
            raise StateUnusable(
                f"the state directory {str(self.root)!r} belongs to user {found.st_uid}, not to you ({os.geteuid()})",
                hint="run as that user, or name another with `--state DIR`",
            )
        if found.st_mode & 0o077:
            raise StateUnusable(
                f"the state directory {str(self.root)!r} is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
                hint=f"it holds tokens and keys: chmod 700 {self.root}",
            )

    def recorded(self) -> list[ChildStatus]:
        """The processes as the supervisor last wrote them; empty when it never did."""
        try:
            return msgspec.json.decode(self.children.read_bytes(), type=list[ChildStatus])
        except (FileNotFoundError, msgspec.DecodeError):
            return []

    def record(self, children: Iterable[ChildStatus]) -> None:
        """Write the processes for `recorded`, in one step."""
        new = self.children.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(list(children)))
        new.replace(self.children)

    def holder(self) -> Holder | None:
        """Who works on this directory now; None for nobody."""
        try:
            with self.lock.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return _settled(file.fileno())
        except FileNotFoundError:
            pass
        except PermissionError as error:
            raise StateUnusable(f"{error.filename}: {error.strerror}", hint="run as its owner") from None
        return None

    @contextmanager
    def held(self, address: str) -> Iterator[int]:
        """Hold the directory for this process; gives the lock's file descriptor. Raises `StateTaken`.

        The kernel drops the lock with the process, however it ends. Raises `StateUnusable` when the disk is full.
        """
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable(self.root, error) from None
        try:
            if not _locked(descriptor):
                raise _taken(self.root, _holder(os.pread(descriptor, 4096, 0)))
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, msgspec.json.encode(Holder(os.getpid(), address, time.time())), 0)
            except OSError as error:
                raise unusable(self.root, error) from None
            yield descriptor
        finally:
            os.close(descriptor)


def unusable(root: Path, error: OSError) -> StateUnusable:
    """What `error` of the file system means to who starts the system on the state directory `root`."""
    return StateUnusable(
        f"the state directory {str(root)!r} cannot be used: {error.strerror or error}",
        hint="free space on its disk" if error.errno == errno.ENOSPC else "name another with `llmctl up --state DIR`",
    )


def _locked(descriptor: int) -> bool:
    for _ in range(10):  # `holder()` in another process takes the lock for an instant
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.03)
        else:
            return True
    return False


def _settled(descriptor: int) -> Holder:
    """Who holds the lock: it has the lock first, and writes who it is then. A signal to process 0 is to ourselves."""
    deadline = time.monotonic() + _WRITTEN_S
    while not (found := _holder(os.pread(descriptor, 4096, 0))).pid and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def _holder(content: bytes) -> Holder:
    try:
        return msgspec.json.decode(content, type=Holder)
    except msgspec.DecodeError:
        return Holder(0, "?", time.time())  # it has the lock and has not written yet


def _taken(root: Path, holder: Holder) -> StateTaken:
    since = clock.local(holder.started)
    return StateTaken(
        f"LLMAgentOS already runs on {str(root)!r}: process {holder.pid}, {holder.address}, since {since}",
        hint="`llmctl status` shows it, `llmctl down` stops it, `llmctl up --state DIR` starts another one",
        pid=holder.pid,
        address=holder.address,
    )

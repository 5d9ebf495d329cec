"""The directory of one job on its node."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from llmagentos.api.jobs import HostEnd, Stats
from llmagentos.core.files import write_whole
from llmagentos.fleet.node import processes
from llmagentos.fleet.node.phases import Phase, Traces, phase

T = TypeVar("T")
_SECRET_FILES = (
    "spec.json",
    "extra-vars.json",
    "inventory.json",
    "vault.json",
    "salt/variables.json",
    "shares.jsonl",
    "peers.jsonl",
    "fetched.jsonl",
)
_SECRET_DIRECTORIES = ("tmp", "fetched", "outside")


class RunnerRecord(msgspec.Struct, frozen=True):
    """The runner's process, as it wrote itself: id, start in ticks since boot, begin in monotonic seconds."""

    pid: int
    start: int
    begun: float


class Exit(msgspec.Struct, frozen=True):
    """How a runner ended: ansible-playbook's code, the recap by host, what ended it early."""

    code: int
    recap: dict[str, Stats] = {}
    error: str | None = None


class Stop(msgspec.Struct, frozen=True):
    """Why the node agent ended the runner, written before it did."""

    status: HostEnd
    message: str


@dataclass(frozen=True, slots=True)
class JobDirectory:
    """Paths and traces of a job."""

    root: Path

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def output(self) -> Path:
        return self.root / "output.log"

    @property
    def shares(self) -> Path:
        return self.root / "shares.jsonl"

    @property
    def peers(self) -> Path:
        return self.root / "peers.jsonl"

    def prepare(self) -> None:
        """Make the directory, for the owner only, and drop what an earlier, unbegun attempt left."""
        self.root.mkdir(exist_ok=True, mode=0o700)
        shutil.rmtree(self.bundle, ignore_errors=True)

    def phase(self) -> Phase:
        """Where the job stands now."""
        return phase(self.traces())

    def traces(self) -> Traces:
        """What is on disk, read in the order that no ending process can slip through."""
        record = self.runner()
        dead = record is not None and not processes.alive(record.pid, record.start)
        locked = self.locked()
        return Traces(
            reported=(self.root / "reported").exists(),
            exited=(self.root / "exit.json").exists(),
            locked=locked,
            runner_dead=dead,
            begun=record is not None or self.events.exists(),
        )

    def runner(self) -> RunnerRecord | None:
        """The runner's process; None before it wrote itself."""
        return _read(self.root / "runner.json", RunnerRecord)

    def exit(self) -> Exit | None:
        """How the runner ended; None before it did, or when it could not say."""
        return _read(self.root / "exit.json", Exit)

    def stopped(self) -> Stop | None:
        """Why the node agent ended it; None when it did not."""
        return _read(self.root / "stop.json", Stop)

    def write_stop(self, stop: Stop) -> None:
        """Say why, before ending the runner. The first reason stays."""
        if self.stopped() is None:
            write_whole(self.root / "stop.json", msgspec.json.encode(stop))

    def write_exit(self, how: Exit) -> None:
        """The end of a job whose runner was never started."""
        write_whole(self.root / "exit.json", msgspec.json.encode(how))

    def write_spec(self, spec: dict[str, Any]) -> None:
        """What the runner reads."""
        write_whole(self.spec, msgspec.json.encode(spec))

    def write_vault(self, passwords: bytes) -> None:
        """What the runner reads, and deletes before the first task."""
        write_whole(self.root / "vault.json", passwords)

    def mark_reported(self) -> None:
        """The server has all of it: the files that may hold secrets go, the rest stays for a while."""
        write_whole(self.root / "reported", b"")
        for name in _SECRET_FILES:
            (self.root / name).unlink(missing_ok=True)
        if (self.root / "fetched").exists():
            shutil.rmtree(self.bundle, ignore_errors=True)  # they lie in it, and those of other nodes
        for name in _SECRET_DIRECTORIES:
            shutil.rmtree(self.root / name, ignore_errors=True)

    def locked(self) -> bool:
        """Whether a process of the run is alive."""
        with self.lock() as held:
            return not held

    @contextmanager
    def lock(self) -> Iterator[int]:
        """The descriptor of the job's lock, held; 0 when a process of the run holds it.

        A process that inherits the descriptor keeps the lock after this block.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield 0
            else:
                yield descriptor
        finally:
            os.close(descriptor)


def directory(jobs: Path, job: int, attempt: int = 1) -> JobDirectory:
    """Where an attempt of a job is kept: `12`, and `12.2` for the second one."""
    return JobDirectory(jobs / (str(job) if attempt == 1 else f"{job}.{attempt}"))


def _kept(jobs: Path) -> list[tuple[tuple[int, int], Path]]:
    """All attempts of all jobs, in order."""
    parts = [(path.name.partition("."), path) for path in jobs.iterdir()]
    return sorted(
        ((int(job), int(attempt or "1")), path)
        for (job, dot, attempt), path in parts
        if job.isdecimal() and (attempt.isdecimal() if dot else True)
    )


def prune(jobs: Path, keep: int) -> None:
    """Remove the directories of reported jobs but for the `keep` newest."""
    found = [path for _, path in _kept(jobs)]
    reported = [path for path in found if (path / "reported").exists()]
    for path in reported[: max(0, len(reported) - keep)]:
        shutil.rmtree(path, ignore_errors=True)


def settle(jobs: Path, held: Path | None) -> bool:
    """Mark reported what has ended, but for `held`, the job that the server gave out; False when something runs on.

    It gives out no other one again: a node agent died after it had told the end, and before it noted that here.
    Raises OSError.
    """
    done = True
    for _, path in _kept(jobs):
        directory = JobDirectory(path)
        phase = Phase.REPORTED if path == held else directory.phase()
        if phase in (Phase.NEW, Phase.ENDED, Phase.INTERRUPTED):
            directory.mark_reported()
        elif phase is not Phase.REPORTED:
            done = False
    return done


def running(jobs: Path) -> list[int]:
    """The jobs whose playbook runs now, with or without a node agent."""
    if not jobs.is_dir():
        return []
    return [job for (job, _), path in _kept(jobs) if JobDirectory(path).phase() is Phase.RUNNING]


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        return None  # written in one step: only a broken disk leaves it so, which is as good as nothing

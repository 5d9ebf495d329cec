"""One supervised process: started, restarted with backoff when it dies, stopped for good when told."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llmagentos.core.errors import OperatorError
from llmagentos.core.lifecycle import Backoff, die_with
from llmagentos.core.state import ChildStatus

_TAIL = 2_000


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run, with its whole environment."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str]
    ready: Path | None = None
    """A file that the process makes when it can work; without one it counts as ready once it runs."""
    directory: Path | None = None
    """Where it runs; without one where this process does."""


class Child:
    """Runs `spec` until `stop`; tells `changed` after every change and `say` what the operator should know."""

    def __init__(self, spec: ChildSpec, *, say: Callable[[str], None], changed: Callable[[], None]) -> None:
        self.spec = spec
        self.status = ChildStatus(spec.name, "starting")
        self.ended = asyncio.Event()
        """Set while no process runs and none is being started."""
        self._say = say
        self._changed = changed
        self._backoff = Backoff()
        self._process: asyncio.subprocess.Process | None = None
        self._log_size = 0
        self._stopping = asyncio.Event()
        self._killed = False
        self.ended.set()

    async def run(self) -> None:
        """Start it and keep it running; returns after `stop` when it has ended."""
        while not self._stopping.is_set():
            uptime = await self._once()
            if self._stopping.is_set():
                break
            delay = self._backoff.died(uptime)
            self._set(state="restarting", pid=None, restarts=self.status.restarts + 1)
            self._say(f"{self.spec.name} {self.status.last_exit}; starting it again in {delay:.1f} s")
            await self._pause(delay)
        self._set(state="stopped", pid=None)

    def stop(self) -> None:
        """Ask the process to end (SIGTERM) and start no other one."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process and all it started in its group, at once."""
        self._stopping.set()
        self._killed = True
        self._signal(signal.SIGKILL)

    @property
    def is_ready(self) -> bool:
        """Whether the running process can work."""
        return self.status.state == "running" and (self.spec.ready is None or self.spec.ready.exists())

    def tail(self) -> str:
        """The end of what it wrote to its log since it was started last."""
        return tail(self.spec.log, since=self._log_size)

    async def _once(self) -> float:
        if self.spec.ready is not None:
            self.spec.ready.unlink(missing_ok=True)
        begun = time.monotonic()
        self.ended.clear()
        try:
            code = await self._lived()
        finally:
            self._process = None
            self.ended.set()
        if code is None:
            return 0.0
        self._set(last_exit=ending(code), pid=None)
        return time.monotonic() - begun

    async def _lived(self) -> int | None:
        """The exit code of the process, once it has ended; None when it could not be started."""
        try:
            self._process = process = await self._spawn()
        except OSError as error:
            self._set(last_exit=f"cannot be started ({self.spec.argv[0]}: {error.strerror})")
            return None
        self._set(state="running", pid=process.pid, started=time.time())
        if self._stopping.is_set():  # told while it was being started
            self._signal(signal.SIGKILL if self._killed else signal.SIGTERM)
        return await process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        # It writes to its file itself: no pump that could stall it, and the log survives the supervisor.
        log = os.open(self.spec.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._log_size = os.fstat(log).st_size
        try:
            return await asyncio.create_subprocess_exec(
                *self.spec.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.spec.env,
                cwd=self.spec.directory,
                process_group=0,  # Ctrl-C on the terminal reaches the supervisor alone, which stops all in order
                preexec_fn=die_with(os.getpid()),
            )
        finally:
            os.close(log)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        try:
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        except ProcessLookupError:
            return  # it ended by itself in this instant

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _set(self, **changes: object) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)
        self._changed()


class ChildFailed(OperatorError):
    """A child without which nothing works could not be started."""

    code = "child_failed"


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def tail(path: Path, *, since: int = 0) -> str:
    """The last lines of a log, of what stands behind its first `since` bytes; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            whole = since if since <= size else 0  # it was cut to nothing meanwhile
            start = max(whole, size - _TAIL)
            file.seek(start)
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return (text.partition("\n")[2] if start > whole else text).strip()

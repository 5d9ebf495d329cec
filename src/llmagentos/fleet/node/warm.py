"""The warm process: the program that runs playbooks, started ahead of time, so that a job begins in milliseconds.

A job's runner is a fork of it with a session of its own and the job's lock, so neither the end of the warm
process nor the node agent's touches a playbook that runs. Where it is missing or refuses, the runner is
started anew, which takes about a second longer.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec

from llmagentos.core import log, metrics

DELAY_S = 2.0
"""After the node agent's start: what has to be up first has the processors until then."""
LOOK_S = 30.0
LIFETIME_S = 6 * 3600.0
JOBS = 100
"""Runners forked of one warm process."""
ANSWER_S = 30.0
"""It may still be importing."""
_PADDING = "-" * 512  # room for the title of its forks, see llmagentos_ansible.title
_PROGRAM = "llmagentos_ansible"
_OURS = "LLMAGENTOS_"
_log = log.get(__name__)


class _Answer(msgspec.Struct, frozen=True):
    pid: int = 0
    refused: str = ""


class Warm:
    """Keeps the warm process for the ansible-core home `home`; its own output goes to `output`."""

    def __init__(self, home: Path, output: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._home = home
        self._output = output
        self._environ = runner_environment(environ)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._version: object = None
        self._until = 0.0
        self._jobs = 0

    async def run(self) -> None:
        """Have one ready until cancelled; `close` ends it."""
        await asyncio.sleep(DELAY_S)
        while True:
            try:
                await asyncio.to_thread(self.prepare)
            except OSError as error:
                _log.error("the warm process does not start", error=str(error))
            await asyncio.sleep(LOOK_S)

    def prepare(self) -> None:
        """Start it when there is none, or when the one there is has served its time or is out of date. Blocks."""
        with self._lock:
            if possible():
                self._prepare()

    def fork(self, directory: Path, lock: int, output: int) -> bool:
        """Have the runner of `directory` forked; it inherits `lock`. Blocks.

        False says that the warm process is not there or refused. It is then dead or has begun nothing: if a
        runner came to be all the same, it holds the lock.
        """
        if not possible():
            return False
        with self._lock:
            try:
                self._prepare()
                answer = self._ask(directory, lock, output)
            except (OSError, msgspec.DecodeError) as error:
                _log.warning("the warm process is not there", error=str(error))
                answer = _Answer()
                self._end()
            if answer.refused:
                _log.info("the warm process refused", reason=answer.refused)
            self._jobs += 1
            metrics.NODE_RUNNERS.labels("warm" if answer.pid else "cold").inc()
            return answer.pid > 0

    def close(self) -> None:
        """End it. Runners go on."""
        with self._lock:
            self._end()

    def _prepare(self) -> None:
        if self._process is not None and self._process.poll() is None and self._fresh():
            return
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROGRAM, "--warm", str(self._home), _PADDING],
                stdin=theirs.fileno(),
                stdout=output,
                stderr=output,
                env=self._environ,
                cwd="/",
                start_new_session=True,
            )
        self._socket, self._version, self._jobs = ours, _version(), 0
        self._until = time.monotonic() + LIFETIME_S

    def _fresh(self) -> bool:
        return self._jobs < JOBS and time.monotonic() < self._until and self._version == _version()

    def _ask(self, directory: Path, lock: int, output: int) -> _Answer:
        assert self._socket is not None
        socket.send_fds(self._socket, [os.fsencode(directory)], [lock, output])
        if not select.select([self._socket], [], [], ANSWER_S)[0]:
            raise TimeoutError(f"no answer within {ANSWER_S:g} s")
        return msgspec.json.decode(self._socket.recv(65536), type=_Answer)

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._socket = None


def possible() -> bool:
    """Whether this system has what it needs: Linux 5.3."""
    return hasattr(os, "pidfd_open")


def runner_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the node agent's environment a runner gets."""
    return {name: value for name, value in environ.items() if not name.startswith(_OURS)}


def _version() -> list[tuple[Path, int]]:
    """Changes when ansible-core or the program is installed anew. Neither is imported here."""
    specs = [find_spec(package) for package in ("ansible", _PROGRAM)]
    places = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin]
    return [(path, path.stat().st_mtime_ns) for place in places for path in sorted(place.glob("*.py"))]

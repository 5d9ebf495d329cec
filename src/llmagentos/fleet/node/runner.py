"""Starting and ending the process that runs a playbook: a fork of the warm process, or a program started anew.

It is not our child, or not for long: it outlives the node agent.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping

import psutil

from llmagentos.fleet.node import processes
from llmagentos.fleet.node.jobdir import JobDirectory
from llmagentos.fleet.node.warm import Warm, runner_environment

STOP_GRACE_S = 5.0
BEGIN_S = 0.01
"""How often it is looked whether it has told who it is."""
PLAYBOOKS = "llmagentos_ansible"
FOREIGN = "llmagentos.fleet.node.foreign"


class Runner:
    """The runner of one job directory. Calls block: use them off the event loop."""

    def __init__(self, directory: JobDirectory, warm: Warm | None = None, *, program: str = PLAYBOOKS) -> None:
        self._directory = directory
        self._warm = warm
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, environ: Mapping[str, str] = os.environ) -> bool:
        """Start it, in a session of its own; False when one is or was there already. Raises `OSError`."""
        return self._fork() or self._anew(environ)

    def _fork(self) -> bool:
        if self._warm is None:
            return False
        with self._directory.lock() as held, self._directory.output.open("ab") as output:
            if not held or self._directory.traces().begun:
                return False
            return self._warm.fork(self._directory.root, held, output.fileno())

    def _anew(self, environ: Mapping[str, str]) -> bool:
        # The lock was let go in between: should the warm process have died just after a fork, the fork holds it.
        with self._directory.lock() as held:
            if not held or self._directory.traces().begun:
                return False
            with self._directory.output.open("ab") as output:
                self._process = subprocess.Popen(
                    # -P: the bundle is its working directory, and must not be where Python finds modules.
                    [sys.executable, "-P", "-m", self._program, str(self._directory.root)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=runner_environment(environ),
                    cwd=self._directory.bundle,
                    pass_fds=[held],  # the lock goes with it: taken before it runs, kept until its last worker ends
                    start_new_session=True,
                )
            return True

    def reap(self) -> None:
        """Collect the process when it was ours and has ended, so that it is no zombie."""
        if self._process is not None:
            self._process.poll()

    async def ended(self, *, within: float) -> None:
        """Wait for its end, at most `within` seconds."""
        if (record := self._directory.runner()) is None:
            await asyncio.sleep(min(within, BEGIN_S))
        else:
            await processes.ended(record.pid, record.start, within=within)

    def interrupt(self) -> None:
        """Ask it to end."""
        if (record := self._directory.runner()) is not None and processes.alive(record.pid, record.start):
            processes.interrupt(record.pid)

    def stop(self) -> None:
        """End it and all that it started: ask, and kill what is left after `STOP_GRACE_S`."""
        found = processes.of_run(self._directory.root)
        self.interrupt()
        deadline = time.monotonic() + STOP_GRACE_S
        while time.monotonic() < deadline and any(process.is_running() and not _gone(process) for process in found):
            self.reap()
            time.sleep(0.05)
        self.kill(found)

    def kill(self, known: list[psutil.Process] | None = None) -> int:
        """End all of it at once; how many processes that were."""
        found = [*(known or []), *processes.of_run(self._directory.root)]
        processes.kill(found)
        self.reap()
        return len(found)


def _gone(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True

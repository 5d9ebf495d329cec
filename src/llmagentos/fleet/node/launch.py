"""Keeps the node agent of PREFIX/current running, and takes a new version back that does not prove itself.

`python3 launch.py PREFIX ARGUMENTS...`, as install.sh sets it up: a copy of this file stands in PREFIX and needs
nothing but Python, so that no version of the package can break it.

    PREFIX/current -> versions/ID       the version that runs; `previous` is the one before
    PREFIX/trial.json                   another one shall be tried: {"id", "digest", "at", "within_s", "begun"}
    PREFIX/healthy                      the running agent's ID, once the server has answered its heartbeat
    PREFIX/outcome.json                 how the last trial ended, until the agent has told the server

A trial: the agent has put the new version beside the others, written trial.json, and ended. The link is switched and
the new agent started. When it is healthy in time it stays; when it ends before, or the time is over, the link is
switched back. A trial in whose middle this program died counts as failed at its next start.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any

WITHIN_S = 60.0
LOOK_S = 0.2
STOP_S = 10.0
LEAST_S, MOST_S, STEADY_S = 1.0, 60.0, 60.0
"""Delay before an agent that died is started again: doubled with each death, the least after a steady run."""
TAIL = 1500
LOG_BYTES = 8 * 1024 * 1024
"""Of `agent.log`; then it becomes `agent.log.1`."""


class Step(Enum):
    """What to do next."""

    RUN = "start the current version"
    TRY = "switch to the new version and start it"
    KEEP = "the new version stays"
    BACK = "switch back to the version before, and start it"
    WAIT = "nothing"


# What stands on disk (no trial, one put ready, one begun) and what happened -> what to do.
TABLE: dict[tuple[str, str], Step] = {
    ("none", "started"): Step.RUN,
    ("none", "ended"): Step.RUN,
    ("none", "healthy"): Step.WAIT,
    ("none", "late"): Step.WAIT,
    ("ready", "started"): Step.TRY,
    ("ready", "ended"): Step.TRY,
    ("ready", "healthy"): Step.WAIT,
    ("ready", "late"): Step.WAIT,
    ("begun", "started"): Step.BACK,
    ("begun", "ended"): Step.BACK,
    ("begun", "healthy"): Step.KEEP,
    ("begun", "late"): Step.BACK,
}


class Launcher:
    """One node agent, of whichever version."""

    def __init__(self, prefix: Path, arguments: list[str]) -> None:
        self._prefix = prefix
        self._arguments = arguments
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._delay = LEAST_S
        self._started = 0.0

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        self._act("started")
        while not self._stopping:
            time.sleep(LOOK_S)
            self._trim()
            self._look()
        self._end()
        return 0

    def _look(self) -> None:
        if self._child is None:
            self._act("ended", "it cannot be started")
        elif (code := self._child.poll()) is not None:
            self._child = None
            self._note(f"the node agent ended with exit code {code}")
            if self._trial()[0] == "none":
                self._pause()
            if not self._stopping:
                self._act("ended", f"it ended with exit code {code}")
        elif self._healthy():
            self._act("healthy")
        elif time.monotonic() - self._started > float(self._trial()[1].get("within_s", WITHIN_S)):
            self._act("late", "it did not reach the server in time")

    def _act(self, event: str, why: str = "this program was ended meanwhile") -> None:
        state, trial = self._trial()
        step = TABLE[state, event]
        if step is Step.TRY:
            self._begin(trial)
        elif step is Step.KEEP:
            self._outcome(trial, "done", "")
            self._clean()
        elif step is Step.BACK:
            self._end()
            self._note(f"version {trial.get('id')} is taken back: {why}")
            self._link("current", str((self._prefix / "previous").readlink()))
            self._outcome(trial, "failed", f"{why}\n{self._tail()}")  # last: whoever reads it finds it done
        if step in (Step.RUN, Step.TRY, Step.BACK):
            self._start()

    # --- what stands on disk -----------------------------------------------------------------------

    def _trial(self) -> tuple[str, dict[str, Any]]:
        try:
            trial = json.loads((self._prefix / "trial.json").read_text())
        except (OSError, ValueError):
            return "none", {}
        if not isinstance(trial, dict) or not (self._prefix / "versions" / str(trial.get("id")) / ".complete").exists():
            return "none", {}
        return ("begun" if trial.get("begun") else "ready"), trial

    def _begin(self, trial: dict[str, Any]) -> None:
        """Written down first: whatever dies from now on, the next start takes it back."""
        self._note(f"version {trial['id']} is tried")
        (self._prefix / "healthy").unlink(missing_ok=True)
        self._link("previous", str((self._prefix / "current").readlink()))
        self._write("trial.json", {**trial, "begun": True})
        self._link("current", f"versions/{trial['id']}")

    def _outcome(self, trial: dict[str, Any], state: str, message: str) -> None:
        wish = {"digest": trial.get("digest"), "at": trial.get("at", 0.0)}
        self._write("outcome.json", {**wish, "state": state, "message": message.strip()})
        (self._prefix / "trial.json").unlink(missing_ok=True)

    def _healthy(self) -> bool:
        try:
            told = (self._prefix / "healthy").read_text().strip()
        except OSError:
            return False
        return told == (self._prefix / "current").readlink().name

    def _clean(self) -> None:
        """Only the version that runs and the one before are kept."""
        kept = {(self._prefix / name).readlink().name for name in ("current", "previous")}
        for old in (self._prefix / "versions").iterdir():
            if old.name not in kept:
                shutil.rmtree(old, ignore_errors=True)

    def _link(self, name: str, target: str) -> None:
        new = self._prefix / f".{name}.new"
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(self._prefix / name)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        new = self._prefix / f".{name}.new"
        with new.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._prefix / name)

    # --- the process -------------------------------------------------------------------------------

    def _start(self) -> None:
        python = self._prefix / "current" / "bin" / "python"
        environ = {**os.environ, "LLMAGENTOS_NODE_PREFIX": str(self._prefix)}
        self._started = time.monotonic()
        log_path = self._prefix / "agent.log"
        if log_path.exists():  # what the last one said stays for a while
            log_path.replace(log_path.with_suffix(".log.1"))
        with log_path.open("ab") as log:
            try:
                self._child = subprocess.Popen(
                    [str(python), "-m", "llmagentos.fleet.node", *self._arguments], env=environ, stderr=log
                )
            except OSError as error:
                self._note(f"the node agent cannot be started: {error}")
                self._child = None
                self._pause()

    def _trim(self) -> None:
        """The agent writes on at the file's end, wherever that is (O_APPEND)."""
        path = self._prefix / "agent.log"
        with contextlib.suppress(OSError):
            if path.stat().st_size > LOG_BYTES:
                with contextlib.suppress(OSError):  # no room for a copy: it is cut all the more
                    shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)

    def _end(self) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None

    def _pause(self) -> None:
        self._delay = LEAST_S if time.monotonic() - self._started > STEADY_S else min(self._delay * 2, MOST_S)
        until = time.monotonic() + self._delay
        while not self._stopping and time.monotonic() < until:
            time.sleep(LOOK_S)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _tail(self) -> str:
        try:
            return (self._prefix / "agent.log").read_bytes()[-TAIL:].decode("utf-8", "replace")
        except OSError:
            return ""

    def _note(self, text: str) -> None:
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(Launcher(Path(sys.argv[1]), sys.argv[2:]).run())

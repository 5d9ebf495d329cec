"""What the engines' processes have in common: their files, their end with their parent, their state."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from llmagentos.core import lifecycle, log
from llmagentos.core.errors import ConfigError
from llmagentos.llm.engines.local import Report, Spec

_log = log.get(__name__)


def run(serve: Callable[[Spec, Callable[[], None]], None]) -> int:
    """The main of an engine: `serve(spec, ready)` serves until it is killed, and calls `ready` once it can work.

    SIGTERM ends the process at once (it holds nothing that has to be saved), and so does its parent's end.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", required=True, help="what to serve, as JSON")
    parser.add_argument("--generation", type=int, default=0, help="how often the model has been loaded before")
    given = parser.parse_args()
    spec = msgspec.json.decode(given.spec, type=Spec)
    report = partial(_report, spec, given.generation)
    log.configure(process="engine")
    os.umask(0o077)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on a terminal is the supervisor's
    lifecycle.die_with(os.getppid(), with_signal=signal.SIGKILL)()
    for left_over in (spec.socket, spec.ready):
        Path(left_over).unlink(missing_ok=True)
    report("loading")

    def ready() -> None:
        report("ready")
        Path(spec.ready).touch(mode=0o600)
        _log.info("ready", model=spec.model, socket=spec.socket)

    try:
        serve(spec, ready)
    except ConfigError as error:
        report("failed", error.message)
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    return 0


def _report(spec: Spec, generation: int, state: str, message: str | None = None) -> None:
    """Write the state in one step: its reader never sees half of it."""
    report = msgspec.convert({"pid": os.getpid(), "state": state, "message": message, "generation": generation}, Report)
    new = Path(f"{spec.report}.new")
    new.write_bytes(msgspec.json.encode(report))
    new.replace(spec.report)

"""One run of Puppet or Salt, from files to files: as the runner of playbooks, with the same traces.

JOBDIR holds `spec.json` and `bundle/`, and is given `runner.json` first, `events.jsonl`, `exit.json` at the very end
and `output.log`; see `fleet/node/jobdir.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import msgspec

from llmagentos.core.errors import LLMAgentOSError
from llmagentos.core.files import write_whole
from llmagentos.fleet.node.foreign import puppet, salt
from llmagentos.fleet.node.foreign.results import Log, Outcome
from llmagentos.fleet.node.foreign.spec import Spec
from llmagentos.fleet.node.jobdir import Exit, RunnerRecord

FAILED = 2
INTERRUPTED = 99
GRACE_S = 3.0
OUTPUT_BYTES = 16 * 1024 * 1024
"""Of what a tool prints; its results are in it or in a file."""
_TOOLS: dict[str, ModuleType] = {"puppet": puppet, "salt": salt}


def main(directory: Path) -> NoReturn:
    """Run what `directory` describes; ends the process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been inherited as ignored
    directory = directory.absolute()
    record = RunnerRecord(os.getpid(), _start(), time.monotonic())
    write_whole(directory / "runner.json", msgspec.json.encode(record))
    log = Log(directory / "events.jsonl")
    spec = msgspec.json.decode((directory / "spec.json").read_bytes(), type=Spec)
    log.begin(f"{spec.kind} {spec.path}")
    try:
        found = _run(spec, directory, log)
    except KeyboardInterrupt:
        _end(directory, Exit(INTERRUPTED, error="interrupted"))
    except (LLMAgentOSError, OSError, ValueError) as error:
        found = Outcome(error=str(error))
    for result in found.results:
        log.tell(spec.host, result)
    if found.error is not None:
        log.say("error", found.error)
    stats = log.recap(spec.host, found.results)
    _end(directory, Exit(FAILED if found.error or stats.failed else 0, {spec.host: stats}, found.error))


def _end(directory: Path, how: Exit) -> NoReturn:
    write_whole(directory / "exit.json", msgspec.json.encode(how))
    sys.exit(how.code)


def _run(spec: Spec, directory: Path, log: Log) -> Outcome:
    tool = _TOOLS[spec.kind]
    call = tool.call(spec, directory)
    output = directory / "tool.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            call.argv,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file if spec.kind == "puppet" else None,
            env={**os.environ, "LC_ALL": "C.UTF-8", **call.environ},
            cwd=directory / "bundle",
            pass_fds=_locks(directory),  # whoever looks for what is left of this run finds it by the lock
        )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        _stop(process)
        raise
    with output.open("rb") as file:
        text = file.read(OUTPUT_BYTES).decode("utf-8", "replace")
    for line in text.splitlines() if spec.verbosity and spec.kind == "puppet" else ():
        log.say("info", line)
    outcome: Outcome = tool.outcome(spec, directory, code, text)
    return outcome


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _locks(directory: Path) -> tuple[int, ...]:
    """The job's lock, which the node agent handed on."""
    try:
        lock = (directory / "lock").stat()
        numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    except FileNotFoundError:
        return ()
    return tuple(number for number in numbers if _is(number, lock))


def _is(descriptor: int, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file)
    except OSError:  # the one that listed the directory
        return False


def _start() -> int:
    """When this process started, in ticks since boot (proc(5), field 22)."""
    try:
        return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:  # not Linux
        return 0

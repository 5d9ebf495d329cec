"""The table of a job's phases, and the directory that the traces are read from."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from llmagentos.fleet.node.jobdir import Exit, JobDirectory, Stop, prune
from llmagentos.fleet.node.phases import Phase, Traces, phase

ALL = [Traces(*values) for values in itertools.product((False, True), repeat=5)]


def test_every_combination_has_a_phase() -> None:
    assert {phase(traces) for traces in ALL} == set(Phase)


def test_nothing_that_has_run_is_ever_begun_again() -> None:
    assert all(not (t.begun or t.exited or t.locked or t.reported) for t in ALL if phase(t) is Phase.NEW)


def test_only_a_dead_run_without_an_exit_is_interrupted() -> None:
    for traces in ALL:
        if phase(traces) is Phase.INTERRUPTED:
            assert traces.begun
            assert not traces.exited
            assert not traces.locked


@pytest.fixture
def directory(tmp_path: Path) -> JobDirectory:
    return JobDirectory(tmp_path)


def hold(directory: JobDirectory) -> subprocess.Popen[bytes]:
    """A process that has inherited the job's lock."""
    with directory.lock() as held:
        assert held
        return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held])


def test_the_lock_lives_as_long_as_its_process(directory: JobDirectory) -> None:
    assert directory.phase() is Phase.NEW
    process = hold(directory)
    assert directory.phase() is Phase.RUNNING
    (directory.root / "runner.json").write_text('{"pid": 999999999, "start": 1, "begun": 1.0}')
    assert directory.phase() is Phase.ORPHANED
    process.kill()
    process.communicate()
    assert directory.phase() is Phase.INTERRUPTED
    directory.write_exit(Exit(0))
    assert directory.phase() is Phase.ENDED
    directory.mark_reported()
    assert directory.phase() is Phase.REPORTED


def test_the_first_reason_to_stop_stays(directory: JobDirectory) -> None:
    directory.write_stop(Stop("cancelled", "first"))
    directory.write_stop(Stop("failed", "second"))
    assert directory.stopped() == Stop("cancelled", "first")


def test_secrets_go_with_the_report(directory: JobDirectory) -> None:
    directory.write_spec({"extra_vars": {"password": "x"}})
    directory.mark_reported()
    assert not directory.spec.exists()


def test_old_directories_go_and_unreported_ones_stay(tmp_path: Path) -> None:
    for number in range(1, 8):
        (tmp_path / str(number)).mkdir()
        if number != 2:
            (tmp_path / str(number) / "reported").touch()
    prune(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "5", "6", "7"]

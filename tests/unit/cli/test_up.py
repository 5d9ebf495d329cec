"""`llmctl down`, and who holds the state directory when it comes."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from llmagentos.cli import up
from llmagentos.core import state as state_module
from llmagentos.core.errors import OperatorError
from llmagentos.core.state import Holder, StateDirectory


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    directory = StateDirectory(tmp_path / "state")
    directory.prepare()
    return directory


def test_nobody_is_signalled_who_does_not_say_who_it_is(state: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal to process 0 would end the shell that called `llmctl down`."""
    monkeypatch.setattr(state_module, "_WRITTEN_S", 0.01)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal"))
    with state.lock.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = CliRunner().invoke(up.down, ["--state", str(state.root)])
    assert isinstance(done.exception, OperatorError)
    assert "does not say which it is" in done.exception.message


def test_one_that_ends_in_the_instant_before_is_stopped_too(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [Holder(os.getpid(), "http://127.0.0.1:1", 0.0), None]

    def gone(pid: int, number: int) -> None:
        assert (pid, number) == (os.getpid(), signal.SIGTERM)
        raise ProcessLookupError

    monkeypatch.setattr(StateDirectory, "holder", lambda _: seen.pop(0))
    monkeypatch.setattr(os, "kill", gone)
    done = CliRunner().invoke(up.down, ["--state", str(state.root)])
    assert done.exception is None
    assert done.output.startswith("Stopped the supervisor on ")

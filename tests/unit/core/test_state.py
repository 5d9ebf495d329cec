from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from llmagentos.core.state import ChildStatus, StateDirectory, StateTaken, StateUnusable

HOLD = """
import sys
from pathlib import Path
from llmagentos.core.state import StateDirectory
with StateDirectory(Path(sys.argv[1])).held("http://127.0.0.1:1"):
    print("held", flush=True)
    sys.stdin.read()
"""

SLOW = """
import fcntl, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(0.3)
os.write(file, b'{"pid": 7, "address": "http://x", "started": 1.0}')
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    directory = StateDirectory(tmp_path / "state")
    directory.prepare()
    return directory


def test_it_is_made_for_the_owner_only(state: StateDirectory) -> None:
    assert oct(state.root.stat().st_mode & 0o777) == "0o700"
    state.prepare()  # again is fine


def test_one_that_others_can_read_is_refused(state: StateDirectory) -> None:
    state.root.chmod(0o750)
    with pytest.raises(StateUnusable) as caught:
        state.prepare()
    assert "0750" in caught.value.message
    assert caught.value.hint == f"it holds tokens and keys: chmod 700 {state.root}"


def test_one_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateUnusable, match="cannot be used"):
        StateDirectory(tmp_path / "file" / "state").prepare()
    with pytest.raises(StateUnusable):
        StateDirectory(tmp_path / "file").prepare()


def test_the_lock_says_who_holds_it_and_goes_with_its_process(state: StateDirectory) -> None:
    assert state.holder() is None
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        holder = state.holder()
        assert holder is not None
        assert (holder.pid, holder.address) == (other.pid, "http://127.0.0.1:1")
        with pytest.raises(StateTaken) as caught, state.held("http://127.0.0.1:2"):
            raise AssertionError("two at once")
        assert str(other.pid) in caught.value.message
        assert caught.value.exit_code == 1
        other.kill()
    assert state.holder() is None
    with state.held("http://127.0.0.1:2"):
        assert state.holder() is not None
    assert state.holder() is None


def test_one_whose_disk_is_full_is_said(state: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StateUnusable, match="No space left on device") as caught, state.held("http://127.0.0.1:1"):
        raise AssertionError("held without saying by whom")
    assert caught.value.hint == "free space on its disk"
    assert state.holder() is None


def test_who_has_just_taken_the_lock_is_asked_again(state: StateDirectory) -> None:
    """`llmctl down` sends it a signal: to nobody yet would be to its own caller."""
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(state.lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        holder = state.holder()
        assert holder is not None
        assert holder.pid == 7
        other.kill()


def test_children_are_remembered(state: StateDirectory) -> None:
    assert state.recorded() == []
    children = [ChildStatus("server", "running", pid=os.getpid(), started=1.0)]
    state.record(children)
    assert state.recorded() == children
    state.children.write_text("torn")
    assert state.recorded() == []

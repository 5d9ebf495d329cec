"""`llmctl top` on a real terminal (a pseudo-terminal): keys act on runs, and the terminal is left as it was."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from integration.agents.conftest import until
from llmagentos.api import runs
from support.server import END_S, ServerProcess
from support.talker import Talker

LEFT = b"\x1b[?25h\x1b[?1049l"


class Terminal:
    """`llmctl top` in a terminal of `columns` by 30."""

    def __init__(self, house: ServerProcess, columns: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self._theirs = theirs
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmagentos.cli.main", "top", "--interval", "0.2"],
            cwd=house.directory,
            env=house.env | {"TERM": "xterm", "COLUMNS": "40"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.set_blocking(self._ours, False)
        self.output = b""

    def shown(self) -> str:
        """All that was drawn so far."""
        try:
            while chunk := os.read(self._ours, 65536):
                self.output += chunk
        except BlockingIOError:
            pass
        return self.output.decode("utf-8", "replace")

    def last(self) -> str:
        """What is on the screen now."""
        return self.shown().rpartition("\x1b[H")[2]

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def left_as_it_was(self) -> bool:
        """Whether modes, cursor and screen are as before; what was written last comes through a moment later."""
        self.shown()
        return termios.tcgetattr(self._theirs) == self.before and self.output.rstrip().endswith(LEFT)

    def close(self) -> None:
        """Close both ends."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture(params=[80, 120])
def top(house: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    terminal = Terminal(house, request.param)
    yield terminal
    terminal.close()


@pytest.mark.anyio
async def test_keys_pause_resume_nice_and_kill(
    house: ServerProcess, friend: str, talker: Talker, top: Terminal
) -> None:
    talker.endless = True
    async with house.client() as client:
        run = (await runs.start(client, friend, "go on")).id

        def state() -> tuple[str, int]:
            (found,) = json.loads(house.llmctl("ps", "-a", "--json").stdout)
            return found["state"], found["priority"]

        until(lambda: run in top.last(), top.shown)
        top.press("+++")
        until(lambda: state() == ("running", 3), top.last)
        top.press("-p")
        until(lambda: state() == ("paused", 2), top.last)
        until(lambda: "paused by" in top.last(), top.last)
        top.press("r")
        until(lambda: state() == ("running", 2), top.last)
        top.press("kn")
        until(lambda: "q quit" in top.last(), top.last)
        assert state()[0] == "running"
        top.press("ky")
        until(lambda: state()[0] == "killed", top.last)
        until(lambda: "Nothing is running." in top.last(), top.last)
        top.press("\x1b[A\x1b[Bq")
        assert top.process.wait(END_S) == 0
        until(top.left_as_it_was, top.shown)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_terminal_is_left_as_it_was(top: Terminal, number: signal.Signals) -> None:
    until(lambda: "talker" in top.shown(), top.shown)
    assert not top.left_as_it_was()
    top.process.send_signal(number)
    assert top.process.wait(END_S) == 0
    until(top.left_as_it_was, top.shown)


def test_a_server_that_goes_away_is_said_and_waited_for(house: ServerProcess, top: Terminal) -> None:
    until(lambda: "talker" in top.shown(), top.shown)
    house.kill()
    until(lambda: "cannot connect" in top.last(), top.last)
    house.start()
    until(lambda: "q quit" in top.last(), top.last)
    top.press("q")
    assert top.process.wait(END_S) == 0
    until(top.left_as_it_was, top.shown)

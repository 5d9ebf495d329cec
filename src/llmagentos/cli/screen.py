"""A terminal as a screen: lines are drawn in place, keys come as they are pressed, and it is left as it was found."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

_ENTER = "\x1b[?1049h\x1b[?25l"  # the alternate screen, no cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_REST_OF_LINE = "\x1b[K"
_REST_OF_SCREEN = "\x1b[J"
_UNKNOWN_SIZE = (80, 24)
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

KEYS = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b": "escape", "\x03": "q", "\x04": "q"}
QUIT = "q"
_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
"""One key: a control sequence (ECMA-48), or a character."""


class Screen:
    """What is drawn and pressed. `pressed` is a key's character, or its name in `KEYS`."""

    def __init__(self) -> None:
        self._keys: asyncio.Queue[str] = asyncio.Queue(maxsize=100)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        found = os.get_terminal_size(sys.stdout.fileno())  # not COLUMNS: a shell's that was resized since
        return (found.columns, found.lines) if found.columns else _UNKNOWN_SIZE

    def draw(self, lines: Sequence[str]) -> None:
        """Show `lines`, which must fit; each replaces what was there, so that nothing flickers."""
        body = "\r\n".join(line + _REST_OF_LINE for line in lines)
        sys.stdout.write(_HOME + body + _REST_OF_SCREEN)
        sys.stdout.flush()

    async def pressed(self, timeout: float) -> str | None:
        """The next key; None when none is pressed for `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return await self._keys.get()
        except TimeoutError:
            return None

    def press(self, key: str) -> None:
        """As if it was pressed; dropped when nobody reads keys."""
        if not self._keys.full():
            self._keys.put_nowait(key)


def is_terminal() -> bool:
    """Whether there is a terminal to draw on and to read keys from."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@asynccontextmanager
async def screen() -> AsyncIterator[Screen]:
    """The terminal as a screen for the block; however the block ends, the terminal is as it was before.

    SIGINT, SIGTERM and SIGHUP come as the key `q`; a terminal in this state is not suspended (Ctrl-Z).
    """
    shown, loop, keyboard = Screen(), asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    suspend = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        tty.setcbreak(keyboard)
        loop.add_reader(keyboard, _read, keyboard, shown)
        for number in _ENDS:
            loop.add_signal_handler(number, shown.press, QUIT)
        sys.stdout.write(_ENTER)
        yield shown
    finally:
        loop.remove_reader(keyboard)
        for number in _ENDS:
            loop.remove_signal_handler(number)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTSTP, suspend)


def _read(keyboard: int, shown: Screen) -> None:
    try:
        text = os.read(keyboard, 64).decode("utf-8", "replace")
    except OSError:
        text = ""
    for key in keys(text) if text else [QUIT]:  # nothing to read means that the terminal is gone
        shown.press(key)


def keys(text: str) -> list[str]:
    """What was pressed; escape sequences that are not in `KEYS` are nothing."""
    return [KEYS.get(found, found) for found in _KEY.findall(text) if found in KEYS or not found.startswith("\x1b")]

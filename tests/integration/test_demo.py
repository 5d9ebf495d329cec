"""`make run`'s demo, from start to Ctrl-C, on a state of its own; and again on that state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support.server import environment, free_port

DEMO = Path(__file__).parents[2] / "scripts" / "demo.py"


class Demo:
    """One run of the demo, its output collected as it comes."""

    def __init__(self, env: dict[str, str]) -> None:
        self.begun = time.monotonic()
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, DEMO], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines += iter(self.process.stdout.readline, "")

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def until(self, words: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.1)

    def interrupt(self) -> int:
        """Ctrl-C: the terminal sends it to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(100)
        self._reader.join(40)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.mark.timeout(400)
def test_the_demo_works_twice_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    env = environment(
        LLMAGENTOS_STATE=str(tmp_path / "state"),
        LLMAGENTOS_SERVER_ADDRESS=f"127.0.0.1:{free_port()}",
        XDG_CONFIG_HOME=str(tmp_path / "config"),
    )
    for number in (1, 2):
        demo = Demo(env)
        try:
            demo.until("The system keeps running", 170)
        finally:
            code = demo.interrupt()
        assert code == 0, demo.text
        assert "39.90 EUR" in demo.text  # the record that the first answer is from
        assert "failed=0" in demo.text
        assert demo.text.count("succeeded") >= 3 * number
        assert "/login?" in demo.text

"""What `make run` shows: the system started and used with ordinary `llmctl` commands, each of which is printed.

It does nothing that these commands do not do. The system keeps running until Ctrl-C.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmagentos.core.i18n import terminal_language, tr

ROOT = Path(__file__).parents[1]
EXAMPLE = Path("examples/catalogue")
LLMCTL = Path(sys.executable).parent / "llmctl"
QUESTIONS = {
    "en": ("How much is the blue kettle?", "How long does the bottle keep drinks cold?", "Do you sell bicycles?"),
    "zh-CN": ("蓝色水壶多少钱？", "保温瓶能保冷多久？", "你们卖自行车吗？"),
}
TTY = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
READY_S = 60.0


class Failed(Exception):
    """A step did not work; its output is on the terminal already."""


class Running:
    """`llmctl up` in this terminal, its lines marked so that they can be told from the demo's."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [LLMCTL, "up"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self._reader = threading.Thread(target=self._relay, daemon=True)
        self._reader.start()

    def _relay(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            say(dim("│ ") + line.rstrip("\n"))

    def end(self) -> int:
        """Wait for the end of `llmctl up`; its exit code."""
        code = self.process.wait()
        self._reader.join(5)
        return code


_screen = threading.Lock()


def say(text: str = "") -> None:
    with _screen:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if TTY else text


def dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if TTY else text


def step(number: int, title: str) -> None:
    say("\n" + bold(f"{number}. {title}"))


def llmctl(*arguments: str) -> None:
    """Show a command and run it in this terminal."""
    shown = " ".join(f'"{word}"' if " " in word or "?" in word or "？" in word else word for word in arguments)
    say(dim("$ ") + bold(f"llmctl {shown}"))
    if subprocess.run([LLMCTL, *arguments], cwd=ROOT).returncode:
        raise Failed(tr("`{command}` failed", command=f"llmctl {shown}"))


def listed(noun: str) -> list[dict[str, Any]]:
    done = subprocess.run([LLMCTL, noun, "--json"], cwd=ROOT, capture_output=True, text=True)
    return list(json.loads(done.stdout)) if done.returncode == 0 else []


def answers() -> bool:
    """Whether a system runs here and can be used."""
    return subprocess.run([LLMCTL, "status", "--json"], cwd=ROOT, capture_output=True).returncode == 0


def wait(what: str, condition: Callable[[], bool], seconds: float, system: Running | None) -> None:
    """Wait until `condition()`; on a terminal the seconds are shown. Fails when `llmctl up` ends."""
    begun = time.monotonic()
    while not condition():
        passed = time.monotonic() - begun
        if system is not None and system.process.poll() is not None:
            raise Failed(tr("`llmctl up` ended"))
        if passed > seconds:
            problem = tr(
                "{what}: not within {seconds} s; `llmctl doctor` says why", what=what, seconds=f"{seconds:.0f}"
            )
            raise Failed(problem)
        if TTY and passed > 1:
            with _screen:
                sys.stdout.write(f"\r{what} ... {passed:.0f} s\x1b[K")
                sys.stdout.flush()
        time.sleep(0.1)
    if TTY:
        sys.stdout.write("\r\x1b[K")


def guide(system: Running | None) -> None:
    """The steps, in order."""
    step(1, tr("Start the system: server, model engine and this machine as a node"))
    say(dim("$ ") + bold("llmctl up"))
    wait(tr("the system starts"), answers, READY_S, system)
    wait(tr("this machine joins"), lambda: any(n["state"] == "ready" for n in listed("nodes")), 30, system)
    llmctl("nodes")

    step(2, tr("Deploy a service, a product catalogue, on the node with a playbook"))
    llmctl("run", str(EXAMPLE / "deploy.yml"))
    llmctl("services", "--wait", "catalogue")

    step(3, tr("Deploy an agent that answers from that service's data"))
    llmctl("apply", "-f", str(EXAMPLE / "support.yaml"))
    wait(tr("the model loads"), lambda: all(m["state"] == "ready" for m in listed("models")), 120, system)
    llmctl("models")

    step(4, tr("Ask it: two questions that the data answers, and one that it cannot"))
    for question in QUESTIONS[terminal_language()]:
        llmctl("ask", "support", question)

    step(5, tr("What ran"))
    llmctl("ps", "-a")

    step(6, tr("See it all in the browser: this link logs you in"))
    llmctl("console")


def main() -> int:
    """Run the demo and keep the system until Ctrl-C; the exit code."""
    begun = time.monotonic()
    system = None if answers() else Running()  # a system that runs here already is used, and left running
    if system is not None:
        signal.signal(signal.SIGTERM, lambda *_: system.process.send_signal(signal.SIGTERM))
    try:
        guide(system)
        say("\n" + tr("The demo took {seconds} s.", seconds=f"{time.monotonic() - begun:.0f}"))
        say(tr("The system keeps running: Ctrl-C stops it.") if system else tr("The system ran before and runs on."))
        return system.end() if system else 0
    except KeyboardInterrupt:
        return _interrupted(system)
    except Failed as error:
        sys.stderr.write(f"error: {error}\n")
        if system is None:
            return 1
        system.process.terminate()
        return system.end() or 1


def _interrupted(system: Running | None) -> int:
    # The terminal sent the signal to `llmctl up` as well: it stops everything in order.
    if system is None:
        return 130
    while True:
        try:
            return system.end()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main())

"""The program that keeps a node agent running and takes a bad version back: with versions that are shell scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmagentos.fleet.node import launch
from llmagentos.fleet.node.launch import TABLE, Step

GOOD = 'printf {id} > "$LLMAGENTOS_NODE_PREFIX/healthy"; exec sleep 60'
CRASHES = "echo broken >&2; exit 3"
HANGS = "exec sleep 60"


def test_the_table_is_whole_and_a_trial_ends_only_in_one_of_two_ways() -> None:
    events = {"started", "ended", "healthy", "late"}
    assert set(TABLE) == {(state, event) for state in ("none", "ready", "begun") for event in events}
    assert {TABLE["begun", event] for event in events} == {Step.KEEP, Step.BACK}
    assert TABLE["begun", "healthy"] is Step.KEEP


class Prefix:
    """A directory as install.sh makes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process: subprocess.Popen[bytes] | None = None
        self.version("one", GOOD)
        self.link("one")

    def link(self, name: str) -> None:
        (self.root / "current").unlink(missing_ok=True)
        (self.root / "current").symlink_to(f"versions/{name}")

    def version(self, name: str, script: str) -> None:
        program = self.root / "versions" / name / "bin" / "python"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n" + script.replace("{id}", name) + "\n")
        program.chmod(0o755)
        (self.root / "versions" / name / ".complete").touch()

    def trial(self, name: str, *, within_s: float = 40.0, begun: bool = False) -> None:
        told = {"id": name, "digest": name, "at": 5.0, "within_s": within_s} | ({"begun": True} if begun else {})
        (self.root / "trial.json").write_text(json.dumps(told))

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, launch.__file__, str(self.root)], stderr=subprocess.DEVNULL)

    def end_agent(self) -> None:
        """As an agent ends that has put a trial ready."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)

    @property
    def current(self) -> str:
        return (self.root / "current").readlink().name

    def outcome(self) -> dict[str, str]:
        wait(lambda: (self.root / "outcome.json").exists())
        found: dict[str, str] = json.loads((self.root / "outcome.json").read_text())
        return found

    def healthy(self, name: str) -> None:
        wait(lambda: (self.root / "healthy").exists() and (self.root / "healthy").read_text() == name)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def prefix(tmp_path: Path) -> Iterator[Prefix]:
    made = Prefix(tmp_path)
    yield made
    if made.process is not None:
        made.process.terminate()
        made.process.wait(40)


def test_a_version_that_proves_itself_stays(prefix: Prefix) -> None:
    prefix.version("two", GOOD)
    prefix.version("old", GOOD)
    prefix.start()
    prefix.healthy("one")
    prefix.trial("two")
    prefix.end_agent()
    assert prefix.outcome() == {"digest": "two", "at": 5.0, "state": "done", "message": ""}
    assert prefix.current == "two"
    wait(lambda: sorted(path.name for path in (prefix.root / "versions").iterdir()) == ["one", "two"])


def test_a_version_that_crashes_is_taken_back(prefix: Prefix) -> None:
    prefix.version("two", CRASHES)
    prefix.start()
    prefix.healthy("one")
    prefix.trial("two")
    prefix.end_agent()
    told = prefix.outcome()
    assert (told["state"], prefix.current) == ("failed", "one")
    assert "exit code 3" in told["message"]
    assert "broken" in told["message"]
    prefix.healthy("one")


def test_a_version_that_never_reaches_the_server_is_taken_back(prefix: Prefix) -> None:
    prefix.version("two", HANGS)
    prefix.trial("two", within_s=0.5)
    prefix.start()
    assert prefix.outcome()["state"] == "failed"
    assert prefix.current == "one"


def test_a_trial_in_whose_middle_the_launcher_was_killed_is_taken_back(prefix: Prefix) -> None:
    prefix.version("two", HANGS)
    prefix.trial("two", within_s=60)
    prefix.start()
    wait(lambda: prefix.current == "two")
    assert prefix.process is not None
    prefix.end_agent()  # the machine went down
    prefix.process.kill()
    prefix.process.wait()
    prefix.start()
    assert prefix.outcome()["state"] == "failed"
    prefix.healthy("one")
    assert prefix.current == "one"


def test_what_the_agent_says_is_kept_over_a_start_and_bounded(prefix: Prefix) -> None:
    (prefix.root / "agent.log").write_text("the last words\n")
    talk = f"head -c {launch.LOG_BYTES + 10} /dev/zero >&2; " + GOOD.replace("exec sleep 60", "sleep 0.1; {rest}")
    rest = 'while ! [ -e "$LLMAGENTOS_NODE_PREFIX/go" ]; do sleep 0.05; done; echo more >&2; exec sleep 60'
    prefix.version("two", talk.replace("{rest}", rest))
    prefix.link("two")
    prefix.start()
    wait(lambda: (prefix.root / "agent.log.1").exists())
    wait(lambda: (prefix.root / "agent.log.1").stat().st_size > launch.LOG_BYTES)
    wait(lambda: (prefix.root / "agent.log").stat().st_size == 0)
    (prefix.root / "go").touch()
    wait(lambda: (prefix.root / "agent.log").read_bytes() == b"more\n")


def test_a_trial_of_a_version_that_is_not_there_is_no_trial(prefix: Prefix) -> None:
    prefix.trial("../../etc")
    prefix.start()
    prefix.healthy("one")
    assert prefix.current == "one"

"""Runs docs/tutorial.md (its translation has the same steps) as a reader would: same files, commands, one shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.server import free_port

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.S)
MARK = "__tutorial_step_done__"


class Step(NamedTuple):
    command: str
    expected: list[str]


def steps(text: str) -> Iterator[tuple[str, str] | Step]:
    """Files to write, as (name, content), and commands to run, in the page's order."""
    for block in BLOCK.finditer(text):
        if block["file"]:
            yield block["file"], block["text"]
        elif block["kind"] == "console":
            step: Step | None = None
            for line in block["text"].splitlines():
                if line.startswith("$ "):
                    if step:
                        yield step
                    step = Step(line[2:], [])
                elif step:
                    step.expected.append(line)
            if step:
                yield step


def matches(expected: list[str], got: list[str]) -> bool:
    """Every expected line occurs, in order; `...` stands for anything."""
    lines = iter(got)
    patterns = [".*".join(re.escape(part) for part in line.split("...")) for line in expected if line != "..."]
    return all(any(re.fullmatch(pattern, line) for line in lines) for pattern in patterns)


class Shell:
    """One bash with job control, so that `&` and `%1` work as in the page."""

    def __init__(self, cwd: Path) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("LLMAGENTOS_")} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LLMAGENTOS_SERVER_ADDRESS": f"127.0.0.1:{free_port()}",
            "XDG_CONFIG_HOME": str(cwd / "config"),
            "LLMAGENTOS_LANG": "en",
            "LC_ALL": "C.UTF-8",
        }
        self.process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-m"],
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> list[str]:
        assert self.process.stdin is not None and self.process.stdout is not None
        background = command.rstrip().endswith("&")
        wrapped = command.rstrip()[:-1] + ">>background.log 2>&1 &" if background else command + " </dev/null"
        self.process.stdin.write(f"{wrapped}\necho; echo {MARK}\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.strip() == MARK:
                break
            lines.append(line.rstrip("\n"))
        return lines

    def close(self) -> None:
        self.run("llmctl down; kill $(jobs -p) 2>/dev/null")
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(100)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.timeout(300)
def test_every_command_of_the_tutorial_works(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    transcript: list[str] = []
    try:
        for step in steps((ROOT / "docs" / "tutorial.md").read_text()):
            if not isinstance(step, Step):
                (tmp_path / step[0]).write_text(step[1])
                continue
            got = shell.run(step.command)
            transcript += [f"$ {step.command}", *got]
            assert matches(step.expected, got), "\n".join([*transcript, "expected:", *step.expected])
    finally:
        shell.close()


def test_the_translation_runs_the_same_steps() -> None:
    english, chinese = ([*steps((ROOT / "docs" / page).read_text())] for page in ("tutorial.md", "tutorial.zh-CN.md"))
    assert english == chinese


def test_a_wrong_output_is_noticed() -> None:
    assert matches(["a...c", "...", "d"], ["x", "abc", "d"])
    assert not matches(["d", "a"], ["a", "d"])

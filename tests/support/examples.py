"""The programs under examples/, run as their READMEs say, against a server of a test."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.scripted import Script
from support.server import ServerProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
READY_S = 60.0
Say = Callable[[dict[str, Any]], str | list[tuple[str, dict[str, Any]]]]
"""From a request to the text of the answer, or to the tools that are asked for with their arguments."""


@contextmanager
def program(server: ServerProcess, file: str, *arguments: str, ready: str = '"registered"') -> Iterator[Path]:
    """A program of examples/ for the block, from when its output has `ready`; its output is the file."""
    log = server.directory / f"{Path(file).stem}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, EXAMPLES / file, *arguments],
            env=server.env, cwd=server.directory, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + READY_S
        while ready not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield log
    finally:
        process.kill()
        process.wait(10)


def apply(server: ServerProcess, *files: str) -> None:
    """`llmctl apply` of agents under examples/."""
    done = server.llmctl("apply", *(word for file in files for word in ("-f", str(EXAMPLES / file))))
    assert done.returncode == 0, done.stderr


def evaluate(server: ServerProcess, *files: str | Path) -> subprocess.CompletedProcess[str]:
    """Run eval cases as a user does."""
    return subprocess.run(
        [sys.executable, EXAMPLES / "run_evals.py", *(EXAMPLES / file for file in files), "--timeout", "90"],
        env=server.env, cwd=server.directory, capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def with_tools(say: Say) -> Script:
    """The script of an engine whose model asks for tools as OpenAI's models do."""

    def script(request: dict[str, Any]) -> list[str | dict[str, Any]]:
        said = say(request)
        if isinstance(said, str):
            return [said]
        calls = [
            {"index": i, "id": f"c{i}", "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
            for i, (n, a) in enumerate(said)
        ]
        return [{"tool_calls": calls}]

    return script


def results(request: dict[str, Any]) -> list[str]:
    """What the tools answered so far, as the model sees it."""
    return [str(message["content"]) for message in request["messages"] if message["role"] == "tool"]


def asked(request: dict[str, Any]) -> str:
    """The user's request."""
    return next(str(m["content"]) for m in reversed(request["messages"]) if m["role"] == "user")


def config(url: str) -> str:
    """`llmagentos.yaml` with the engine at `url` as its default model."""
    return f"models:\n  thinker: {{engine: openai, url: '{url}', aliases: [default], tools: native}}\n"

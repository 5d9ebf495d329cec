"""Budgets of runs that others carry on: agents in modules, programs of other frameworks."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from integration.agents.conftest import ModuleProcess, house, shop, talker, until  # noqa: F401
from llmagentos.api import budgets
from support.server import END_S, ServerProcess, llmctl_beside
from support.talker import Talker

PROGRAM = """
import openai
client = openai.OpenAI(max_retries=0)
for text in ["one", "two"]:
    found = client.chat.completions.create(model="default", messages=[{"role": "user", "content": text}])
    print(found.choices[0].message.content, flush=True)
"""


@contextmanager
def started(house: ServerProcess, *arguments: str) -> Iterator[subprocess.Popen[str]]:  # noqa: F811
    """`llmctl` beside the test."""
    process = llmctl_beside(house.directory, house.env, *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=END_S)


def paused(house: ServerProcess) -> list[dict[str, Any]]:  # noqa: F811
    return json.loads(house.llmctl("ps", "--state", "paused", "--json").stdout)


def spent(house: ServerProcess, path: str) -> dict[str, int]:  # noqa: F811
    async def ask() -> dict[str, int]:
        async with house.client() as client:
            return (await budgets.listing(client, path)).budgets[0].spent

    return asyncio.run(ask())


def test_an_agent_in_a_module_waits_for_room(house: ServerProcess, shop: ModuleProcess, talker: Talker) -> None:  # noqa: F811
    double = '{"tool": "double", "arguments": {"number": 21}}'

    def say(request: dict[str, Any]) -> str:
        if "response_format" not in request:
            return "It is 42."
        return double if not any("Result of" in m["content"] for m in request["messages"]) else '{"tool": "answer"}'

    talker.say = say
    assert house.llmctl("budget", "set", "org/default/sums", "--calls", "1").returncode == 0
    with started(house, "ask", "sums", "Twice 21?") as asking:
        until(lambda: paused(house), shop.log)
        assert house.llmctl("budget", "set", "org/default/sums", "--calls", "9").returncode == 0
        out, error = asking.communicate(timeout=60)
    assert asking.returncode == 0, error
    assert out.startswith("It is 42.")
    assert shop.notes.count("double 21") == 1
    found = spent(house, "org/default/sums")
    assert (found["calls"], found["tool_calls"]) == (3, 1)


def test_a_tool_call_beyond_the_limit_fails_the_run(house: ServerProcess, shop: ModuleProcess, talker: Talker) -> None:  # noqa: F811
    talker.say = lambda _: '{"tool": "double", "arguments": {"number": 21}}'
    limits = ("budget", "set", "org/default/sums", "--tool-calls", "0", "--on-limit", "refuse")
    assert house.llmctl(*limits).returncode == 0
    failed = house.llmctl("ask", "sums", "Twice 21?")
    assert failed.returncode == 1
    assert "failed: the budget of org/default/sums allows 0 tool_calls" in failed.stderr
    assert shop.notes == []


def test_a_program_waits_with_its_call(house: ServerProcess, talker: Talker) -> None:  # noqa: F811
    Path(house.directory, "program.py").write_text(PROGRAM)
    assert house.llmctl("budget", "set", "org/default/robot", "--calls", "1").returncode == 0
    with started(house, "exec", "--agent", "robot", "--", sys.executable, "program.py") as program:
        until(lambda: paused(house))
        assert len(talker.requests) == 1
        assert house.llmctl("budget", "set", "org/default/robot", "--calls", "2").returncode == 0
        out, error = program.communicate(timeout=60)
    assert program.returncode == 0, error
    assert out.splitlines()[:2] == ["The kettle costs 39.90 EUR."] * 2
    assert spent(house, "org/default/robot")["calls"] == 2

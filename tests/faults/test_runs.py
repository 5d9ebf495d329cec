"""`kill -9` of whoever works on a run: the run goes on from its log, and nothing that was answered is done again."""

from __future__ import annotations

import json
import subprocess
import sys

from integration.agents.conftest import ModuleProcess, house, shop, talker, until  # noqa: F401
from support.server import ServerProcess
from support.talker import Talker

# Two tool calls, the second one slow; then the answer.
SEARCH = '{"tool": "shop.search", "arguments": {"query": "kettle"}}'
SLOW = '{"tool": "shop.slow", "arguments": {"query": "kettle"}}'
READY = '{"tool": "answer"}'
BUYER = """
kind: Agent
name: buyer
model: talker
tools:
  - service: shop.search
  - service: shop.slow
"""


def asking(house: ServerProcess, agent: str) -> subprocess.Popen[str]:  # noqa: F811
    return subprocess.Popen(
        [sys.executable, "-m", "llmagentos.cli.main", "ask", agent, "What about kettles?"],
        cwd=house.directory,
        env=house.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def by_progress(replies: dict[int, str]) -> object:
    """What to say depends on how many results the prompt has: it is the same however often it is asked."""

    def say(request: dict) -> str:  # type: ignore[type-arg]
        results = sum("Result of" in message["content"] for message in request["messages"])
        if "response_format" not in request:
            return "The kettle costs 39.90 EUR."
        return replies[results]

    return say


def events_of(house: ServerProcess) -> list[dict]:  # type: ignore[type-arg]  # noqa: F811
    run = json.loads(house.llmctl("ps", "-a", "--json").stdout)[0]["id"]
    return [json.loads(line) for line in house.llmctl("logs", run, "--json").stdout.splitlines()]


def test_a_run_survives_kill_9_of_the_server(house: ServerProcess, shop: ModuleProcess, talker: Talker) -> None:  # noqa: F811
    """Killed while the second tool works: the first is not called again, the one under way is not repeated blindly."""
    talker.say = by_progress({0: SEARCH, 1: SLOW, 2: READY})  # type: ignore[assignment]
    (house.directory / "buyer.yaml").write_text(BUYER)
    assert house.llmctl("apply", "-f", "buyer.yaml").returncode == 0
    process = asking(house, "buyer")
    until(lambda: "slow begins" in shop.notes, within=60)
    house.kill()
    house.start()
    shop.go()
    out, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    assert out.startswith("The kettle costs 39.90 EUR.")
    assert "connection lost" in error
    assert [note for note in shop.notes if note.startswith("search")] == ["search kettle"]
    assert shop.notes.count("slow begins") == 1
    events = events_of(house)
    kinds = [event["data"]["type"] for event in events]
    assert kinds.count("claimed") == 2
    assert kinds.count("tool_called") == 2
    assert kinds.count("tool_answered") == 2
    given_up = [event["data"] for event in events if event["data"]["type"] == "tool_answered"][1]
    assert "whether it was carried out is not known" in given_up["error"]
    tree = house.llmctl("trace", json.loads(house.llmctl("ps", "-a", "--json").stdout)[0]["id"]).stdout
    assert "taken over by" in tree


def test_a_run_survives_kill_9_of_its_module(house: ServerProcess, shop: ModuleProcess, talker: Talker) -> None:  # noqa: F811
    """Killed while the second tool works, which may be repeated: another instance of the module repeats only that."""
    double = '{"tool": "double", "arguments": {"number": 21}}'
    wait = '{"tool": "wait", "arguments": {"seconds": 1}}'
    talker.say = by_progress({0: double, 1: wait, 2: READY})  # type: ignore[assignment]
    process = asking(house, "sums")
    until(lambda: "wait begins" in shop.notes, within=60)
    shop.processes[0].kill()
    shop.go()
    shop.start()
    out, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    assert out.startswith("The kettle costs 39.90 EUR.")
    assert shop.notes.count("double 21") == 1
    assert "lease of a run ran out" in house.log()
    assert shop.notes.count("wait begins") == 2
    kinds = [event["data"]["type"] for event in events_of(house)]
    assert kinds.count("claimed") == 2
    assert kinds.count("tool_called") == 2


def test_a_module_that_leaves_hands_its_runs_over_at_once(
    house: ServerProcess,  # noqa: F811
    shop: ModuleProcess,  # noqa: F811
    talker: Talker,  # noqa: F811
) -> None:
    wait = '{"tool": "wait", "arguments": {"seconds": 1}}'
    talker.say = by_progress({0: wait, 1: READY})  # type: ignore[assignment]
    process = asking(house, "sums")
    until(lambda: "wait begins" in shop.notes, within=60)
    shop.start()
    shop.processes[0].terminate()
    until(lambda: shop.notes.count("wait begins") == 2, shop.log, within=60)
    assert "lease of a run ran out" not in house.log(), "nobody waited for the end of its lease"
    shop.go()
    out, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    assert out.startswith("The kettle")


def test_a_module_goes_on_through_kill_9_of_the_server(
    house: ServerProcess,  # noqa: F811
    shop: ModuleProcess,  # noqa: F811
    talker: Talker,  # noqa: F811
) -> None:
    """The module's run is not disturbed: its events wait until the server is back."""
    wait = '{"tool": "wait", "arguments": {"seconds": 1}}'
    talker.say = by_progress({0: wait, 1: READY})  # type: ignore[assignment]
    process = asking(house, "sums")
    until(lambda: "wait begins" in shop.notes, within=60)
    house.kill()
    shop.go()
    house.start()
    out, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    assert out.startswith("The kettle")
    assert shop.notes.count("wait begins") == 1
    assert [event["data"]["type"] for event in events_of(house)].count("claimed") == 1

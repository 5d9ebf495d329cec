"""Pause, resume, nice and kill through `llmctl`, on a real server with an engine that says what the test says."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from integration.agents.conftest import ModuleProcess, until
from llmagentos.api import control, runs
from llmagentos.api.llm import ModelInfo
from llmagentos.api.runs import RunState
from support.server import ServerProcess
from support.talker import Talker

SEARCH = '{"tool": "shop.search", "arguments": {"query": "kettle"}}'
READY = '{"tool": "answer"}'
BUYER = "{kind: Agent, name: buyer, model: talker, priority: batch, tools: [{service: shop.search}]}"


class Door:
    """What the talker says waits at the door: one request at a time is let through."""

    def __init__(self, talker: Talker, replies: list[str]) -> None:
        self.asked = 0
        self._replies = replies
        self._open = threading.Semaphore(0)
        self._talker = talker
        talker.say = self._say

    def _say(self, request: dict[str, Any]) -> str:
        self.asked += 1
        results = sum("Result of" in message["content"] for message in request["messages"])
        assert self._open.acquire(timeout=100)
        return self._replies[results] if "response_format" in request else "The kettle costs 39.90 EUR."

    def let(self, count: int = 1) -> None:
        """Let requests through."""
        for _ in range(count):
            self._open.release()


def ps(house: ServerProcess, *options: str) -> list[dict[str, Any]]:
    return json.loads(house.llmctl("ps", "--json", *options).stdout)


def kinds(house: ServerProcess, run: str) -> list[str]:
    return [json.loads(line)["data"]["type"] for line in house.llmctl("logs", run, "--json").stdout.splitlines()]


@pytest.fixture
def door(talker: Talker) -> Door:
    return Door(talker, [SEARCH, READY])


@pytest.fixture
def buyer(house: ServerProcess, shop: ModuleProcess) -> str:
    (house.directory / "buyer.yaml").write_text(BUYER)
    assert house.llmctl("apply", "-f", "buyer.yaml").returncode == 0
    return "buyer"


async def begun(house: ServerProcess, agent: str, **more: Any) -> str:
    async with house.client() as client:
        return (await runs.start(client, agent, "What about kettles?", **more)).id


@pytest.mark.anyio
async def test_a_paused_run_is_put_down_at_once_and_goes_on_later(
    house: ServerProcess, shop: ModuleProcess, buyer: str, door: Door
) -> None:
    """Its call of a model ends in the engine, and is made again."""
    run = await begun(house, buyer)
    until(lambda: door.asked == 1)
    paused = house.llmctl("pause", run[:6], "--reason", "lunch")
    assert (paused.returncode, "is paused" in paused.stderr) == (0, True)
    async with house.client() as client:
        listed = await client.get("/api/v1/models", list[ModelInfo])
        model = next(model for model in listed if model.name == "talker")
        assert (model.running, model.waiting) == (0, 0)
    (shown,) = ps(house)
    assert (shown["state"], shown["paused"], shown["priority"]) == ("paused", "admin:admin: lunch", 15)
    assert "paused by admin:admin: lunch" in house.llmctl("ps", "--state", "paused").stdout
    assert (shop.notes, door.asked) == ([], 1)
    door.let(4)
    assert house.llmctl("resume", run).returncode == 0
    assert house.llmctl("wait", run).stdout == "The kettle costs 39.90 EUR.\n"
    assert shop.notes == ["search kettle"]
    found = kinds(house, run)
    assert found[:7] == ["created", "claimed", "model_called", "paused", "resumed", "claimed", "model_called"]
    assert (found.count("model_called"), found.count("model_replied")) == (4, 3)
    assert "lunch" in house.llmctl("trace", run).stdout


@pytest.mark.anyio
async def test_pause_now_stops_the_engine_and_the_call_is_made_again(
    house: ServerProcess, friend: str, talker: Talker
) -> None:
    talker.endless = True
    run = await begun(house, friend)
    until(lambda: talker.requests)
    assert house.llmctl("pause", "--now", run).returncode == 0
    until(lambda: talker.cut_off == 1)
    talker.endless = False
    assert house.llmctl("resume", run).returncode == 0
    assert house.llmctl("wait", run).stdout == "The kettle costs 39.90 EUR.\n"
    assert kinds(house, run).count("model_called") == 2
    again = house.llmctl("resume", run)
    assert (again.returncode, "succeeded" in again.stderr) == (2, True)


@pytest.mark.anyio
async def test_a_paused_run_stays_so_through_kill_9(
    house: ServerProcess, shop: ModuleProcess, buyer: str, door: Door
) -> None:
    run = await begun(house, buyer)
    until(lambda: door.asked == 1)
    house.llmctl("pause", run)
    house.kill()
    house.start()
    door.let(4)
    async with house.client() as client:
        assert (await runs.get(client, run)).state is RunState.PAUSED
        assert kinds(house, run)[-1] == "paused"
        await control.resume(client, run)
    assert house.llmctl("wait", run).stdout == "The kettle costs 39.90 EUR.\n"
    assert shop.notes == ["search kettle"]


@pytest.mark.anyio
async def test_a_call_that_waits_is_put_down_and_a_nicer_run_goes_later(
    start_server: Any, talker: Talker, door: Door
) -> None:
    """One slot: the first run holds it. Of those that wait the more urgent goes first; the paused one not at all."""
    house: ServerProcess = start_server(talker.config.replace("aliases: [default]", "aliases: [default], slots: 1"))
    (house.directory / "friend.yaml").write_text("{kind: Agent, name: friend, model: talker}")
    assert house.llmctl("apply", "-f", "friend.yaml").returncode == 0
    async with house.client() as client:
        await runs.start(client, "friend", "first")
        until(lambda: door.asked == 1)
        low, high, put_down = [(await runs.start(client, "friend", text)).id for text in ("low", "high", "down")]
        until(lambda: sum(run["wait"] is not None for run in ps(house)) == 3)
        await control.pause(client, put_down)
        await control.renice(client, low, "batch")
        await control.renice(client, high, -5)
        waits = {run["id"]: run["wait"] for run in ps(house, "--sort", "priority")}
        assert next(iter(waits)) == high
        assert (waits[high]["position"], waits[low]["position"]) == (1, 2)
        until(lambda: {run["id"]: run["wait"] for run in ps(house)}[put_down] is None)
        assert "a slot (talker #1)" in house.llmctl("ps").stdout
        door.let(3)
        assert house.llmctl("wait", low).returncode == 0
        order = [request["messages"][-1]["content"] for request in talker.requests]
        assert order == ["first", "high", "low"]
        await control.resume(client, put_down)
        door.let()
        assert house.llmctl("wait", put_down).returncode == 0


@pytest.mark.anyio
async def test_runs_below_a_run_share_its_fate(house: ServerProcess, friend: str, talker: Talker) -> None:
    talker.endless = True
    above = await begun(house, friend, priority="batch")
    until(lambda: talker.requests)
    below = await begun(house, friend, parent=above)
    async with house.client() as client:
        until(lambda: len(talker.requests) == 2)
        assert (await runs.get(client, below)).priority == 15
        await control.pause(client, above)
        assert (await runs.get(client, below)).paused == f"run:{above}"
        await control.resume(client, above)
        assert (await runs.get(client, below)).state is RunState.RUNNING
        await control.kill(client, above)
        assert (await runs.get(client, below)).state is RunState.KILLED
    until(lambda: talker.cut_off == len(talker.requests), lambda: f"{talker.cut_off} of {len(talker.requests)}")
    other = await begun(house, friend)
    several = house.llmctl("kill", above, "0none", other)  # none of them keeps the others alive
    assert several.returncode == 2
    assert [line for line in several.stderr.splitlines() if "hint" not in line] == [
        "error: the run has already been killed",
        "error: there is no run '0none'",
        f"run {other} stopped",
    ]
    refused = house.llmctl("nice", above, "+5")
    assert (refused.returncode, "already been killed" in refused.stderr) == (2, True)
    faulty = house.llmctl("nice", above, "batsch")
    assert (faulty.returncode, "did you mean 'batch'?" in faulty.stderr) == (2, True)


def test_top_without_a_terminal_prints_once(house: ServerProcess, friend: str) -> None:
    shown = house.llmctl("top")
    assert shown.returncode == 0, shown.stderr
    assert "talker" in shown.stdout
    assert "Nothing is running." in shown.stdout
    assert set(json.loads(house.llmctl("top", "--json").stdout)) == {"at", "runs", "models", "nodes"}

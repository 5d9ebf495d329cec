"""`kill -9` of the server at random moments: what is spent stays the sum of the calls, and nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Awaitable

import pytest

from integration.agents.conftest import ModuleProcess, house, shop, talker  # noqa: F401
from llmagentos.api import budgets, runs
from llmagentos.api.budgets import BudgetSpec, Limit
from llmagentos.api.client import ApiClient
from llmagentos.api.llm import CallInfo
from llmagentos.core.errors import LLMAgentOSError
from support.crashing import charged
from support.server import ServerProcess
from support.talker import Talker

KILLS = int(os.environ.get("LLMAGENTOS_TEST_KILLS", "10"))
SEED = int(os.environ.get("LLMAGENTOS_TEST_SEED", "0")) or random.randrange(1, 10**6)
AT_ONCE = 3
SEARCH = '{"tool": "shop.search", "arguments": {"query": "kettle"}}'
OTHER = '{"tool": "shop.search", "arguments": {"query": "knife"}}'
ANSWER = "The kettle costs 39.90 EUR."
BUYER = "kind: Agent\nname: buyer\nteam: shopping\nmodel: talker\ntools: [{service: shop.search}]\n"


def say(request: dict) -> str:  # type: ignore[type-arg]
    """Two searches, then the answer: it depends on the prompt alone, so a call made again is answered alike."""
    time.sleep(0.02)
    results = sum("Result of" in message["content"] for message in request["messages"])
    if "response_format" not in request:
        return ANSWER
    return [SEARCH, OTHER, '{"tool": "answer"}'][min(results, 2)]


async def settled(house: ServerProcess) -> list[runs.RunSummary]:  # noqa: F811
    """All runs, once none is under way."""
    async with house.client() as client, asyncio.timeout(120):
        while await runs.listing(client, ended=False):
            await asyncio.sleep(0.05)
        return await runs.listing(client, ended=True, limit=1000)


async def ask_until_killed(house: ServerProcess, moment: Awaitable[object]) -> None:  # noqa: F811
    async with house.client() as client:
        for _ in range(AT_ONCE):
            await runs.start(client, "buyer", "What about kettles?")
    await moment
    house.kill()
    await asyncio.to_thread(house.start)


async def counted(client: ApiClient, run: str) -> tuple[int, int, int]:
    """Replies of the model, calls of tools and hosts in the log; no call of a tool twice."""
    data = [event.data for event in await runs.events(client, run)]
    called = [item.call_id for item in data if isinstance(item, runs.ToolCalled)]
    answered = [item.call_id for item in data if isinstance(item, runs.ToolAnswered)]
    assert len(called) == len(set(called))
    assert called == answered
    replies = sum(isinstance(item, runs.ModelReplied) for item in data)
    return replies, len(called), sum(isinstance(item, runs.Claimed) for item in data)


async def spent(client: ApiClient) -> budgets.Budget:
    """The agent's node, once nothing waits to be stored any more."""
    async with asyncio.timeout(60):
        while True:
            found = {node.path: node for node in (await budgets.listing(client)).budgets}
            if not found["org"].reserved:
                return found["org/shopping/buyer"]
            await asyncio.sleep(0.1)


@pytest.mark.timeout(240 + 10 * KILLS)
def test_budgets_are_the_sum_of_the_calls(house: ServerProcess, shop: ModuleProcess, talker: Talker) -> None:  # noqa: F811
    asked, go_on = threading.Event(), threading.Event()

    def held(request: dict) -> str:  # type: ignore[type-arg]
        asked.set()
        go_on.wait(60)
        return say(request)

    talker.say = held
    (house.directory / "buyer.yaml").write_text(BUYER)
    assert house.llmctl("apply", "-f", "buyer.yaml").returncode == 0
    chance = random.Random(SEED)  # moments, not secrets

    async def main() -> None:
        async with house.client() as client:
            await budgets.put(client, "org", BudgetSpec([Limit("tokens", 10**9, "month"), Limit("runs", 2)]))
        for number in range(KILLS):
            moment = asyncio.sleep(chance.uniform(0, 0.7)) if number else asyncio.to_thread(asked.wait, 60)
            try:
                await ask_until_killed(house, moment)
                go_on.set()  # the first kill hit a run for certain
            except LLMAgentOSError as error:
                raise AssertionError(f"seed {SEED}: {error.message}\n{house.log()[-3000:]}") from error
        found = await settled(house)
        assert {run.state.value for run in found} == {"succeeded"}, f"seed {SEED}"
        async with house.client() as client:
            assert {(await runs.get(client, run.id)).answer for run in found} == {ANSWER}
            counts = [await counted(client, run.id) for run in found]
            node = await spent(client)
            listed = await client.get("/api/v1/models/calls?limit=1000", list[CallInfo])
        tokens = sum(run.tokens_in + run.tokens_out for run in found)
        wanted = {"tokens": tokens, "calls": sum(count[0] for count in counts)}
        wanted["tool_calls"] = sum(count[1] for count in counts)
        assert {name: node.spent[name] for name in wanted} == wanted, f"seed {SEED}"
        sums = charged(listed, node.path)
        assert {name: node.spent.get(name, 0) for name in sums} == sums, f"seed {SEED}"
        assert len(found) == KILLS * AT_ONCE
        assert sum(count[2] for count in counts) > len(found), "no kill hit a run"

    asyncio.run(main())

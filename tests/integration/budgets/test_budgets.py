"""Budgets through the whole house: a real server, a scripted engine, the API and `llmctl`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from llmagentos.api import budgets
from llmagentos.api.budgets import BudgetSpec, Limit
from llmagentos.api.llm import ChatRequest, Message
from llmagentos.core.errors import Conflict, InvalidInput, NotFound, TooManyRequests
from support.server import ServerProcess, StartServer
from support.talker import Talker

PROMPT = 11
"""What the scripted engine says that every prompt has."""
AGENT = "kind: Agent\nname: helper\nteam: support\nmodel: talker\ninstructions: Be brief.\nlimits: {reply: 20}\n"


@pytest.fixture
def talker() -> Iterator[Talker]:
    """An engine that says five words."""
    talker = Talker(lambda _: "one two three four five")
    with talker.running():
        yield talker


@pytest.fixture
def house(talker: Talker, start_server: StartServer) -> ServerProcess:
    """A server with that engine and an agent of the team `support`."""
    server = start_server(talker.config)
    (server.directory / "helper.yaml").write_text(AGENT)
    assert server.llmctl("apply", "-f", "helper.yaml").returncode == 0
    return server


def spent(house: ServerProcess, path: str) -> dict[str, int]:
    """But for the seconds that runs worked: on a busy machine they are not the same each time."""

    async def ask() -> dict[str, int]:
        async with house.client() as client:
            found = (await budgets.listing(client, path)).budgets[0].spent
            return {name: amount for name, amount in found.items() if name != "seconds"}

    return asyncio.run(ask())


async def until(condition: Callable[[], object], *, within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


def runs_in(house: ServerProcess, state: str) -> list[dict[str, object]]:
    return [run for run in json.loads(house.llmctl("ps", "-a", "--json").stdout) if run["state"] == state]


def test_what_a_run_takes_counts_in_all_its_ancestors(house: ServerProcess) -> None:
    assert house.llmctl("ask", "helper", "Hello").returncode == 0
    assert house.llmctl("ask", "helper", "Hello").returncode == 0
    for path in ("org", "org/support", "org/support/helper"):
        assert spent(house, path) == {"tokens": 2 * (PROMPT + 5), "calls": 2}
    house.kill()
    house.start()
    assert spent(house, "org/support") == {"tokens": 2 * (PROMPT + 5), "calls": 2}
    assert house.llmctl("budget", "show", "org/sales").returncode == 2


def test_a_hard_limit_refuses_callers_and_says_when(house: ServerProcess, talker: Talker) -> None:
    async def main() -> None:
        request = ChatRequest([Message("user", "Hello")], max_tokens=10)
        async with house.client() as client:
            await budgets.put(client, "org", BudgetSpec([Limit("calls", 2, "day")]))
            for _ in range(2):
                await client.post("/v1/chat/completions", request, dict)
            with pytest.raises(TooManyRequests, match="allows 2 calls per day: 2 used") as refused:
                await client.post("/v1/chat/completions", request, dict)
            assert 1 <= refused.value.retry_after <= 86_400
            shown = (await budgets.listing(client)).budgets[0]
            assert (shown.limits[0].used, shown.limits[0].reserved) == (2, 0)
            await budgets.delete(client, "org")
            await client.post("/v1/chat/completions", request, dict)

    asyncio.run(main())
    assert len(talker.requests) == 3


def test_answers_are_capped_by_what_is_left(house: ServerProcess, talker: Talker) -> None:
    async def main() -> None:
        async with house.client() as client:
            await budgets.put(client, "org", BudgetSpec([Limit("tokens", 200)]))
            await client.post("/v1/chat/completions", ChatRequest([Message("user", "Hello")]), dict)

    asyncio.run(main())
    assert 16 <= talker.requests[0]["max_tokens"] <= 200


def test_a_run_waits_for_room_and_goes_on(house: ServerProcess, talker: Talker) -> None:
    async def main() -> None:
        assert (await asyncio.to_thread(house.llmctl, "budget", "set", "org/support", "--calls", "1")).returncode == 0
        assert (await asyncio.to_thread(house.llmctl, "ask", "helper", "Hello")).returncode == 0
        asking = subprocess.Popen(
            [sys.executable, "-m", "llmagentos.cli.main", "ask", "helper", "Again"],
            cwd=house.directory,
            env=house.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        await until(lambda: runs_in(house, "paused"))
        assert "budget: the budget of org/support allows 1 calls" in str(runs_in(house, "paused")[0]["paused"])
        house.kill()
        await asyncio.to_thread(house.start)
        async with house.client() as client:
            assert [wait.path for wait in (await budgets.listing(client)).waiting]
            assert len(talker.requests) == 1
            await budgets.put(client, "org/support", BudgetSpec([Limit("calls", 5)]))
        out, error = await asyncio.to_thread(asking.communicate, timeout=60)
        assert asking.returncode == 0, error
        assert out.strip() == "one two three four five"

    asyncio.run(main())
    assert spent(house, "org/support") == {"tokens": 2 * (PROMPT + 5), "calls": 2}


def test_a_limit_that_refuses_fails_the_run(house: ServerProcess) -> None:
    assert house.llmctl("budget", "set", "org", "--tokens", "20", "--on-limit", "refuse").returncode == 0
    failed = house.llmctl("ask", "helper", "Hello")
    assert failed.returncode == 1
    assert "the budget of org allows 20 tokens" in failed.stderr


def test_concurrent_runs_wait_their_turn(house: ServerProcess, talker: Talker) -> None:
    talker.endless = True
    house.llmctl("budget", "set", "org/support/helper", "--runs", "1")

    async def main() -> None:
        async with house.client() as client:
            from llmagentos.api import runs

            first = await runs.start(client, "helper", "One")
            await until(lambda: talker.requests)
            second = await runs.start(client, "helper", "Two")
            waiting = (await budgets.listing(client)).waiting
            assert (await runs.get(client, second.id)).state == "queued"
            assert [wait.resource for wait in waiting] in ([], ["runs"])
            await asyncio.to_thread(house.llmctl, "kill", first.id)
            await until(lambda: len(talker.requests) == 2)
            await asyncio.to_thread(house.llmctl, "kill", second.id)

    asyncio.run(main())


def test_limits_are_set_shown_and_deleted(house: ServerProcess) -> None:
    done = house.llmctl("budget", "set", "org/support", "--tokens", "100k/day", "--money", "5.50/month", "--soft")
    assert done.returncode == 0, done.stderr
    assert house.llmctl("budget", "set", "org/support", "--tokens", "120k/day", "--hard").returncode == 0
    shown = json.loads(house.llmctl("budget", "show", "org/support", "--json").stdout)["budgets"][0]
    told = {(limit["resource"], limit["amount"], limit["period"], limit["hard"]) for limit in shown["limits"]}
    assert told == {
        ("tokens", 100_000, "day", False),
        ("tokens", 120_000, "day", True),
        ("money", 5_500_000_000, "month", False),
    }
    text = house.llmctl("budget", "show").stdout
    assert "org/support" in text
    assert "5.50 USD" in text
    assert house.llmctl("budget", "delete", "org/support").returncode == 0
    again = house.llmctl("budget", "delete", "org/support")
    assert again.returncode == 2
    assert "has no limits" in again.stderr
    wrong = house.llmctl("budget", "set", "org/support", "--tokens", "many")
    assert wrong.returncode == 2
    assert "e.g. 100k/day" in wrong.stderr


def test_faults_in_limits_are_told(house: ServerProcess) -> None:
    async def main() -> None:
        async with house.client() as client:
            with pytest.raises(InvalidInput, match="not below 'org'"):
                await budgets.put(client, "acme", BudgetSpec([Limit("tokens", 1)]))
            with pytest.raises(InvalidInput, match="limited twice"):
                await budgets.put(client, "org", BudgetSpec([Limit("tokens", 1), Limit("tokens", 2)]))
            with pytest.raises(NotFound, match="there is no budget"):
                await budgets.listing(client, "org/nobody")

    asyncio.run(main())


def test_the_configuration_sets_limits_and_prices(talker: Talker, start_server: StartServer) -> None:
    config = talker.config + (
        "budgets:\n  currency: EUR\n  limits:\n    org: {money: [1/month, 0.5/month soft], calls: 3}\n"
        "  prices:\n    talker: [{since: 2020-01-01, input: 1000, output: 2000}]\n"
    )
    house = start_server(config)

    async def main() -> None:
        async with house.client() as client:
            request = ChatRequest([Message("user", "Hello")], max_tokens=10)
            await client.post("/v1/chat/completions", request, dict)
            found = await budgets.listing(client)
            assert found.currency == "EUR"
            assert found.budgets[0].configured
            assert found.budgets[0].spent["money"] == (PROMPT * 1000 + 5 * 2000) * 1000  # nano
            with pytest.raises(Conflict, match=r"stand in llmagentos\.yaml"):
                await budgets.put(client, "org", BudgetSpec([Limit("tokens", 1)]))

    asyncio.run(main())


def test_alerts_are_logged_and_counted(house: ServerProcess) -> None:
    house.llmctl("budget", "set", "org", "--calls", "2", "--soft")
    for _ in range(3):
        assert house.llmctl("ask", "helper", "Hello").returncode == 0
    assert house.log().count("budget threshold reached") == 2

    async def metrics() -> str:
        async with house.client() as client:
            return await client.text("/metrics")

    assert 'llmagentos_budget_alerts_total{kind="soft",resource="calls"} 2.0' in asyncio.run(metrics())

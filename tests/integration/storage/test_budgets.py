"""The owner of budgets with a real database: what survives a crash, what is counted once, what waits."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from llmagentos.api.llm import Usage
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import Conflict
from llmagentos.kernel.limits import BudgetExceeded, Limit
from llmagentos.llm.budget_calls import Demand, PausedByBudget, Step
from llmagentos.storage.database import StorageUnavailable
from support.server import eventually
from support.spending import AGENT, CALLER, ORG, TEAM, Call, Process, Start, house


def test_what_is_reserved_is_durable_before_the_call_starts(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        first = await start()
        async with first.budgets.holding(Call("c1"), CALLER, "r1", Demand(50, 50)):
            after = await start()
            assert after.tree.held(ORG) == {"tokens": 100, "calls": 1, "money": 125_000}
            assert after.tree.spent(ORG) == {}

    house(database_url, main)


def test_what_was_used_is_settled_once_and_survives(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        first = await start()
        await first.call(Call("c1"))
        for process in (first, await start()):
            for path in (ORG, TEAM, AGENT, (*AGENT, "r1")):
                assert process.tree.spent(path) == {"tokens": 50, "calls": 1, "money": 40_000}
                assert process.tree.held(path) == {}

    house(database_url, main)


def test_a_call_under_way_is_found_again_by_its_replay(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        first = await start()
        first.step = Step("0", 1)
        await first.crash(Call("c1"))
        second = await start()
        second.step = Step("0", 2)
        assert second.tree.held(ORG)["tokens"] == 100
        await second.call(Call("c2"))
        assert second.tree.spent(ORG)["tokens"] == 50
        assert second.tree.held(ORG) == {}

    house(database_url, main)


def test_a_settled_call_whose_reply_was_lost_is_counted_once(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        first = await start()
        first.step = Step("0", 1)
        await first.call(Call("c1"))
        second = await start()
        second.step = Step("0", 2)
        await second.call(Call("c2"))
        assert second.tree.spent(ORG) == {"tokens": 50, "calls": 1, "money": 40_000}
        await second.call(Call("c3"))  # another call of the same step is another call
        second.step = Step("1", 2)
        await second.call(Call("c4"))
        assert second.tree.spent(ORG)["calls"] == 3

    house(database_url, main)


def test_a_call_made_again_by_another_host_of_the_same_server_is_counted_once(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        process = await start()
        process.step = Step("0", 1)
        await process.call(Call("c1"))
        process.step = Step("0", 2)
        await process.call(Call("c2"))
        assert process.tree.spent(ORG)["calls"] == 1

    house(database_url, main)


def test_what_may_have_been_spent_without_a_run_counts_in_full(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        first = await start()
        await first.crash(Call("c1"), run=None)
        for process in (await start(), await start()):
            assert process.tree.spent(CALLER)["tokens"] == 100
            assert process.tree.held(ORG) == {}

    house(database_url, main)


@pytest.mark.parametrize("away", [False, True])
def test_a_run_that_ended_leaves_only_sums(database_url: str, away: bool) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        process = await start()
        assert await process.budgets.admit("r1")
        await process.call(Call("c1"))
        assert process.tree.held(ORG) == {"runs": 1}
        if away:
            await process.crash(Call("c2"))
            process = await start(live=())
        else:
            process.budgets.ended("r1")
            await process.budgets.let_on()
        assert process.tree.spent(ORG)["tokens"] == (150 if away else 50)
        assert process.tree.held(ORG) == {}
        assert (*AGENT, "r1") not in process.tree.paths()
        assert await process.records.calls() == []
        assert [node.path for node in await process.records.spending()] == ["org", "org/red", "org/red/helper"]

    house(database_url, main)


def test_a_run_is_closed_after_its_calls_and_its_sub_runs(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        process = await start()
        process.paths["r2"] = (*AGENT, "r1", "r2")
        assert await process.budgets.admit("r1")
        assert await process.budgets.admit("r2")
        async with process.budgets.holding(Call("c1"), CALLER, "r2", Demand(50, 50)) as hold:
            hold.started = True
            process.budgets.ended("r1")
            process.budgets.ended("r2")
            assert (*AGENT, "r1", "r2") in process.tree.paths()
        assert process.tree.paths(AGENT) == [AGENT]
        assert process.tree.spent(AGENT) == {"tokens": 50, "calls": 1, "money": 40_000}
        assert process.tree.held(ORG) == {}

    house(database_url, main)


def test_a_period_that_ends_makes_room(database_url: str) -> None:
    async def main(start: Start, clock: ManualClock) -> None:
        process = await start(limits={ORG: [Limit("calls", 1, "hour")]})
        await process.call(Call("c1"))
        with pytest.raises(BudgetExceeded) as refused:
            await process.call(Call("c2"))
        assert 0 < refused.value.retry_after <= 3600
        assert (refused.value.details["budget"], refused.value.details["resource"]) == ("org", "calls")
        clock.advance(refused.value.retry_after)
        await process.call(Call("c3"))
        process = await start(limits={ORG: [Limit("calls", 2)]})
        with pytest.raises(BudgetExceeded):
            await process.call(Call("c4"))

    house(database_url, main)


def test_a_call_that_never_started_gives_everything_back(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        process = await start()
        with pytest.raises(ZeroDivisionError):
            async with process.budgets.holding(Call("c1"), CALLER, "r1", Demand(50, 50)):
                raise ZeroDivisionError
        for known in (process, await start()):
            assert known.tree.held(ORG) == known.tree.spent(ORG) == {}

    house(database_url, main)


def test_a_call_waits_when_only_what_others_hold_is_in_the_way(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        process = await start(limits={ORG: [Limit("tokens", 120)]})
        async with process.budgets.holding(Call("c1"), CALLER, "r1", Demand(50, 50)) as hold:
            hold.started = True
            second = asyncio.create_task(process.call(Call("c2"), "r2", Demand(10, 40)))
            await eventually(process.budgets.waiting)
            assert not second.done()
        await second
        assert process.tree.spent(ORG)["calls"] == 2
        assert process.budgets.waiting() == []

    house(database_url, main)


def test_a_run_is_paused_and_let_on(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        process = await start(limits={TEAM: [Limit("calls", 1)]})
        process.on_limit = "pause"
        await process.call(Call("c1"))
        with pytest.raises(PausedByBudget, match="the budget of org/red allows 1 calls"):
            await process.call(Call("c2"))
        assert process.paused == ["r1"]
        (wait,) = process.budgets.waiting()
        assert (wait.run, wait.path, wait.resource, wait.resets_at) == ("r1", "org/red", "calls", None)
        await process.budgets.let_on()
        assert process.resumed == []
        process = await start(limits={TEAM: [Limit("calls", 2)]}, paused=["r1"])
        assert [wait.run for wait in process.budgets.waiting()] == ["r1"]
        process.away = True
        with pytest.raises(StorageUnavailable):
            await process.budgets.let_on()
        process.away = False
        for _ in range(2):
            await process.budgets.let_on()
        assert process.resumed == ["r1"]
        await process.call(Call("c3"))

    house(database_url, main)


def test_runs_under_way_are_limited_and_admitted_once(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        limits = {AGENT: [Limit("runs", 1)]}
        process = await start(limits=limits)
        assert await process.budgets.admit("r1")
        assert await process.budgets.admit("r1")
        assert not await process.budgets.admit("r2")
        assert not process.budgets.has_room("r2")
        process = await start(limits=limits)
        assert await process.budgets.admit("r1")
        assert not await process.budgets.admit("r2")
        process.budgets.ended("r1")
        assert process.budgets.has_room("r2")
        assert await process.budgets.admit("r2")

    house(database_url, main)


async def tool(counted: AbstractAsyncContextManager[None], error: Exception | None = None) -> None:
    async with counted:
        if error is not None:
            raise error


def test_a_tool_call_that_the_log_refused_is_not_counted(database_url: str) -> None:
    """Its run was paused or killed at that moment. One that a dead process had begun counts when the run ends."""

    async def main(start: Start, _: ManualClock) -> None:
        process = await start()
        assert await process.budgets.admit("r1")
        with pytest.raises(Conflict):
            await tool(process.budgets.tool_called("r1", "call-1"), Conflict("paused"))
        assert (process.tree.spent(ORG), process.tree.held(ORG)) == ({}, {"runs": 1})
        async with process.budgets.tool_called("r1", "call-1"):
            process = await start()
        assert process.tree.held(ORG)["tool_calls"] == 1
        process.budgets.ended("r1")
        assert (process.tree.spent(ORG), process.tree.held(ORG)) == ({"tool_calls": 1}, {})

    house(database_url, main)


def test_tool_calls_and_time_are_counted_once_and_limited(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        limits = {ORG: [Limit("tool_calls", 2), Limit("seconds", 10)]}
        process = await start(limits=limits)
        assert await process.budgets.admit("r1")
        await tool(process.budgets.tool_called("r1", "call-1"))
        process.budgets.worked("r1", 4)
        process.budgets.worked("r1", 6)
        await process.budgets.let_on()
        process = await start(limits=limits)
        await tool(process.budgets.tool_called("r1", "call-1"))
        await tool(process.budgets.tool_called("r1", "call-2"))
        with pytest.raises(BudgetExceeded, match="tool_calls"):
            await tool(process.budgets.tool_called("r1", "call-3"))
        process.budgets.worked("r1", 10)
        assert process.tree.spent(ORG) == {"tool_calls": 2, "seconds": 10}
        with pytest.raises(BudgetExceeded, match="10 seconds"):
            await process.call(Call("c1"))

    house(database_url, main)


@pytest.mark.parametrize("when", ["before", "after"])
def test_storage_that_fails_holds_nothing_and_forgets_nothing(database_url: str, when: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        process = await start()
        process.records.fails = when
        with pytest.raises(StorageUnavailable):
            await process.call(Call("c1"))
        assert process.tree.held(ORG) == {}
        process.records.fails = ""
        async with process.budgets.holding(Call("c2"), CALLER, "r1", Demand(50, 50)) as hold:
            hold.started = True
            process.records.fails = when  # the answer is there and was paid: it stands
        process.records.fails = ""
        await process.budgets.let_on()
        for known in (process, await start()):
            assert known.tree.spent(ORG)["calls"] == 1
            assert known.tree.held(ORG) == {}

    house(database_url, main)


def test_calls_at_the_same_time_share_transactions(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        process = await start(limits={})
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(process.call(Call(f"c{number}"), f"r{number % 7}"))
        assert process.tree.spent(ORG)["calls"] == 100
        assert process.records.stored < 40
        after = await start(tuple(f"r{number}" for number in range(7)), limits={})
        assert after.tree.spent(ORG) == process.tree.spent(ORG)

    house(database_url, main)


def test_alerts_come_once_a_period_also_after_a_restart(database_url: str) -> None:
    async def main(start: Start, clock: ManualClock) -> None:
        limits = {ORG: [Limit("calls", 2, "day", hard=False)]}
        process = await start(limits=limits)
        await process.call(Call("c1"))
        assert [(alert.threshold, alert.used, alert.hard) for alert in process.alerts] == [(0.5, 1, False)]
        process = await start(limits=limits)
        await process.call(Call("c2"))
        await process.call(Call("c3"))
        assert [(alert.threshold, alert.used) for alert in process.alerts] == [(1.0, 2)]
        clock.advance(86_400)
        await process.call(Call("c4"))
        assert process.alerts[-1].threshold == 0.5

    house(database_url, main)


def test_prices_change_on_their_day(database_url: str) -> None:
    async def main(start: Start, clock: ManualClock) -> None:
        process = await start()
        await process.call(Call("c1", Usage(1_000_000, 0, 1_000_000)))
        clock.wall = 2.1e9
        await process.call(Call("c2", Usage(1_000_000, 0, 1_000_000)), None)
        assert process.tree.spent(ORG)["money"] == 1_500_000_000

    house(database_url, main)


def test_answers_are_capped_only_where_something_is_limited(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        async def most(process: Process, demand: Demand) -> int | None:
            async with process.budgets.holding(Call("c"), CALLER, None, demand) as hold:
                return hold.most_out

        assert await most(await start(limits={}), Demand(10)) is None
        assert await most(await start(limits={}), Demand(10, 300)) == 300
        assert await most(await start(limits={ORG: [Limit("tokens", 100)]}), Demand(10)) == 90
        assert await most(await start(limits={ORG: [Limit("money", 10**9)]}), Demand(10)) == 4096
        assert await most(await start(limits={ORG: [Limit("tokens", 100)]}), Demand(10, generates=False)) is None

    house(database_url, main)


def test_idle_nodes_without_limits_are_forgotten(database_url: str) -> None:
    async def main(start: Start, clock: ManualClock) -> None:
        process = await start(live=())
        await process.call(Call("c1"), None)
        clock.advance(401 * 86_400)
        assert await process.budgets.prune() == 2  # the caller and its team; the organisation has a limit
        assert process.tree.paths() == [ORG]
        assert [node.path for node in await process.records.spending()] == ["org"]

    house(database_url, main)

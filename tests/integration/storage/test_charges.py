"""What budgets have counted is exactly the sum of the calls that are listed, whoever dies in the middle of them."""

from __future__ import annotations

import contextlib
import random

import pytest

from llmagentos.api.llm import CallInfo, Usage
from llmagentos.core.clock import ManualClock
from llmagentos.kernel.limits import Limit
from llmagentos.llm.budget_calls import Demand, Step
from llmagentos.storage.database import StorageUnavailable
from support.spending import AGENT, CALLER, ORG, Call, Process, Start, house


async def listed(process: Process) -> dict[str, CallInfo]:
    return {call.id: call for call in await process.logged.newest(1000)}


def test_a_call_is_listed_with_what_was_counted_in_the_same_transaction(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        process = await start()
        await process.call(Call("c1"))
        (call,) = (await listed(process)).values()
        assert (call.budget, call.charged, call.money, call.status) == ("org/red/helper/r1", 50, 40_000, "succeeded")
        await process.require_sums()

    house(database_url, main)


def test_a_call_whose_engine_died_in_the_middle_is_listed_as_it_was_counted(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        process = await start()
        with pytest.raises(ZeroDivisionError):
            async with process.budgets.holding(Call("c1", Usage(40, 3, 43)), CALLER, "r1", Demand(50, 50)) as hold:
                hold.started = True
                raise ZeroDivisionError
        assert (await listed(process))["c1"].charged == 43
        await process.require_sums()

    house(database_url, main)


def test_a_call_without_a_run_that_the_server_did_not_survive_is_listed_as_cut_off(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        first = await start()
        await first.crash(Call("c1"), run=None)
        for process in (await start(), await start()):
            call = (await listed(process))["c1"]
            assert (call.status, call.charged, call.money) == ("cut_off", 100, 125_000)
            assert call.budget == "/".join(CALLER)
            assert "the server ended" in (call.error or "")
            await process.require_sums()

    house(database_url, main)


def test_what_a_run_still_holds_at_its_end_is_listed_as_cut_off(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        first = await start()
        first.step = Step("0", 1)
        await first.call(Call("c1"))
        first.step = Step("1", 1)
        await first.crash(Call("c2"))
        process = await start(live=())
        found = await listed(process)
        assert {name: (call.status, call.charged) for name, call in found.items()} == {
            "c1": ("succeeded", 50),
            "c2": ("cut_off", 100),
        }
        assert process.tree.spent(ORG)["tokens"] == 150
        await process.require_sums()

    house(database_url, main)


def test_a_call_that_is_made_again_is_counted_and_listed_once(database_url: str) -> None:
    async def main(start: Start, _: ManualClock) -> None:
        first = await start()
        first.step = Step("0", 1)
        await first.crash(Call("c1"))
        second = await start()
        second.step = Step("0", 2)
        await second.call(Call("c2"))
        second.budgets.ended("r1")
        await second.budgets.let_on()
        assert list(await listed(second)) == ["c2"]
        await second.require_sums()

    house(database_url, main)


@pytest.mark.parametrize("seed", range(3))
def test_sums_fit_whatever_happens(database_url: str, seed: int) -> None:
    """Calls with and without runs that succeed, fail, are made again; processes that die; storage that is away."""
    chance = random.Random(seed)  # moments, not secrets

    async def main(start: Start, _: ManualClock) -> None:
        live = [f"r{number}" for number in range(4)]
        limits = {ORG: [Limit("tokens", 10**9)]}
        process, fence = await start(tuple(live), limits), 1
        for number in range(40):
            run = chance.choice([*live, None])
            process.step = None if run is None or chance.random() < 0.2 else Step(str(chance.randrange(3)), fence)
            call = Call(f"{seed}x{number}", Usage(chance.randrange(1, 50), chance.randrange(50)))
            what = chance.choice(["works", "works", "fails", "never starts", "crash", "away", "ends"])
            if what == "works":
                await process.call(call, run)
            elif what == "crash":
                await process.crash(call, run)
                process, fence = await start(tuple(live), limits), fence + 1
            elif what == "ends" and len(live) > 1:
                live.remove(gone := chance.choice(live))
                process.budgets.ended(gone)
            elif what == "away":
                with contextlib.suppress(StorageUnavailable):  # a call made again may have nothing to store
                    async with process.budgets.holding(call, CALLER, run, Demand(50, 50)) as hold:
                        hold.started = True
                        process.records.fails = chance.choice(["before", "after"])
                process.records.fails = ""
            else:
                with pytest.raises(ZeroDivisionError):
                    async with process.budgets.holding(call, CALLER, run, Demand(50, 50)) as hold:
                        hold.started = what == "fails"
                        raise ZeroDivisionError
            await process.budgets.journal.commit()
            await process.require_sums()
        process = await start((), limits)
        assert process.tree.paths(AGENT) == [AGENT]
        assert process.tree.held(ORG) == {}
        await process.require_sums()

    house(database_url, main)

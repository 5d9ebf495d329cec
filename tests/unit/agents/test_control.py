"""Control over runs, on a real database: what the log says, and what the gate and hosts are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmagentos.agents.states import InvalidTransition, RunEnded, RunPaused
from llmagentos.api.runs import (
    Answered,
    ModelCalled,
    ModelReplied,
    Purpose,
    Reniced,
    Resumed,
    RunSort,
    RunState,
    ToolAnswered,
    ToolCalled,
)
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput
from llmagentos.kernel.leases import LeaseLost
from support.house import MODULE, House, house

pytestmark = pytest.mark.anyio
CALL, REPLY = ModelCalled(Purpose.ANSWER, "m"), ModelReplied(Purpose.ANSWER, "hi", 3, 4)


async def types(h: House, run: str) -> list[str]:
    return [event.type for event in await h.ledger.events(run)]


async def state(h: House, run: str) -> RunState:
    return (await h.ledger.get(run)).state


async def test_a_queued_run_that_is_paused_is_given_to_nobody(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        paused = await h.control.pause(run, by="admin:me", reason="lunch")
        assert (paused.state, paused.paused) == (RunState.PAUSED, "admin:me: lunch")
        assert await h.ledger.claim("server", "server/1", wait=0) is None
        await h.control.resume(run, by="admin:me")
        assert await state(h, run) is RunState.QUEUED
        assert (await h.taken()).run == run
        assert h.gate.told == [("hold", run), ("put_down", run), ("release", run)]


async def test_the_call_under_way_is_finished_and_no_other_begun(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        claim = await h.taken()
        await h.ledger.append(run, claim.fence, 2, [CALL])
        await h.control.pause(run, by="admin:me")
        seen = await h.ledger.append(run, claim.fence, 3, [REPLY])
        assert [event.type for event in seen] == ["paused", "model_replied"]  # what the host did not know comes along
        for refused in (CALL, ToolCalled("a", "t", {})):
            with pytest.raises(RunPaused):
                await h.ledger.append(run, claim.fence, 5, [refused])
        await h.ledger.release(run, claim.fence)
        await h.control.resume(run, by="admin:me")
        again = await h.taken("server/2")
        assert (again.run, again.fence > claim.fence) == (run, True)


async def test_who_still_works_when_a_run_is_resumed_keeps_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        claim = await h.taken()
        await h.ledger.append(run, claim.fence, 2, [ToolCalled("a", "t", {})])
        await h.control.pause(run, by="admin:me")
        await h.control.renice(run, 5, by="admin:me")
        await h.control.resume(run, by="admin:me")
        assert await h.ledger.claim("server", "server/2", wait=0) is None
        seen = await h.ledger.append(run, claim.fence, 3, [ToolAnswered("a", 1)])
        assert [event.type for event in seen] == ["paused", "reniced", "resumed", "tool_answered"]
        assert await h.ledger.append(run, claim.fence, 3, [ToolAnswered("a", 1)]) == seen  # repeated: the same answer
        await h.ledger.append(run, claim.fence, 7, [Answered("ok")])
        assert await state(h, run) is RunState.SUCCEEDED


async def test_now_takes_the_run_away_from_its_host(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        claim = await h.taken()
        await h.ledger.append(run, claim.fence, 2, [CALL])
        await h.control.pause(run, by="admin:me", now=True)
        assert [told[0] for told in h.gate.told] == ["hold", "put_down", "stop"]
        with pytest.raises(LeaseLost):
            await h.ledger.append(run, claim.fence, 3, [REPLY])
        with pytest.raises(LeaseLost):
            h.ledger.renew(run, claim.fence)
        await h.control.resume(run, by="admin:me")
        again = await h.taken()
        await h.ledger.append(run, again.fence, again.events[-1].seq, [CALL])


async def test_a_call_that_only_waits_is_put_down(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        await h.taken()
        h.gate.waiting.add(run)
        await h.control.pause(run, by="admin:me")
        assert [told[0] for told in h.gate.told] == ["hold", "put_down", "stop"]


async def test_a_paused_run_may_still_end_well_but_not_fail(tmp_path: Path) -> None:
    """A call that was cancelled because of the pause is no failure of the run."""
    async with house(tmp_path) as h:
        first, second = await h.ask(), await h.ask()
        claims = {claim.run: claim for claim in (await h.taken(), await h.taken())}
        for run in (first, second):
            await h.ledger.append(run, claims[run].fence, 2, [CALL])
            await h.control.pause(run, by="admin:me")
        await h.ledger.append(first, claims[first].fence, 3, [REPLY, Answered("hi")])
        assert await state(h, first) is RunState.SUCCEEDED
        assert (await h.ledger.get(first)).paused is None
        with pytest.raises(RunEnded):
            await h.control.resume(first, by="admin:me")


async def test_pausing_twice_changes_nothing_and_resuming_needs_a_pause(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        with pytest.raises(InvalidTransition, match="is not paused"):
            await h.control.resume(run, by="admin:me")
        await h.control.pause(run, by="admin:me")
        await h.control.pause(run, by="admin:you")
        assert (await h.ledger.get(run)).paused == "admin:me"
        assert await types(h, run) == ["created", "paused"]


async def test_what_is_paused_stays_so_through_a_restart(tmp_path: Path) -> None:
    """The gate is told again; a module that still works on its call may write the reply; nobody else gets the run."""
    async with house(tmp_path) as h:
        run = await h.ask(name="seller")
        claim = await h.taken("shop/1", MODULE)
        await h.ledger.append(run, claim.fence, 2, [CALL])
        await h.control.pause(run, by="admin:me")
        ledger = h.again()
        await ledger.begin()
        await h.control.begin()
        assert h.gate.told == [("hold", run)]
        await ledger.append(run, claim.fence, 4, [REPLY])
        await ledger.release(run, claim.fence)
        assert await ledger.claim(MODULE, "shop/2", wait=0) is None
        await h.control.resume(run, by="admin:me")
        assert await ledger.claim(MODULE, "shop/2", wait=0) is not None


async def test_a_host_cannot_say_what_people_say(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        claim = await h.taken()
        for data in (Resumed("x"), Reniced(-20, "x")):
            with pytest.raises(InvalidInput):
                await h.ledger.append(run, claim.fence, 2, [data])


async def test_a_host_that_was_replaced_while_paused_cannot_write(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        slow = await h.taken("server/1")
        await h.ledger.append(run, slow.fence, 2, [CALL])
        await h.control.pause(run, by="admin:me")
        h.clock.advance(11)
        await h.control.resume(run, by="admin:me")
        await h.taken("server/2")
        with pytest.raises(LeaseLost):
            await h.ledger.append(run, slow.fence, 3, [REPLY])


async def test_priorities(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        first, urgent, later = [
            await h.ask(text, priority=nice) for text, nice in [("a", None), ("b", "realtime"), ("c", 19)]
        ]
        await h.control.renice(first, 3, by="admin:me")
        assert ("renice", first, 3) in h.gate.told
        found = await h.ledger.newest(ended=False, sort=RunSort.PRIORITY)
        assert [(run.id, run.priority) for run in found] == [(urgent, -15), (first, 3), (later, 19)]
        await h.control.kill(first, by="admin:me")
        with pytest.raises(RunEnded):
            await h.control.renice(first, 0, by="admin:me")


async def test_what_a_run_asked_for_shares_its_fate(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        above = await h.ask(priority=7)
        await h.taken()
        below, own = [await h.ask(parent=above) for _ in range(2)]
        deep = None
        await h.control.pause(own, by="admin:me")
        await h.control.pause(above, by="admin:me")
        assert [(await h.ledger.get(run)).paused for run in (below, own)] == [f"run:{above}", "admin:me"]
        with pytest.raises(RunPaused):
            await h.ask(parent=above)
        await h.control.resume(above, by="admin:me")
        assert [await state(h, run) for run in (below, own)] == [RunState.QUEUED, RunState.PAUSED]
        await h.taken()
        deep = await h.ask(parent=below)
        assert (await h.ledger.get(deep)).priority == 7
        await h.control.kill(above, by="admin:me")
        assert {await state(h, run) for run in (above, below, own, deep)} == {RunState.KILLED}
        with pytest.raises(RunEnded):
            await h.ask(parent=above)


async def test_nobody_asks_below_a_run_that_acts_for_somebody_else(tmp_path: Path) -> None:
    """What is below a run has its caller's memory, permits and budget."""
    async with house(tmp_path) as h:
        above = await h.ask()
        await h.taken()
        agent = await h.agents.current("support")
        assert agent is not None
        with pytest.raises(Forbidden, match="acts for admin:me"):
            await h.ledger.create(agent, "What do you remember of me?", by="operator:eve", parent=above)
        assert (await h.ledger.create(agent, "And of me?", by="admin:me", parent=above)).parent == above


async def test_runs_are_not_nested_without_end(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        parent: str | None = None
        with pytest.raises(Conflict, match="deep"):
            for _ in range(20):
                parent = await h.ask(parent=parent)
                await h.taken()


async def test_lists_are_filtered_sorted_and_paged(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        runs = [await h.ask(str(n)) for n in range(5)]
        by_input = {(await h.ledger.get(run)).input: run for run in runs}
        await h.control.pause(by_input["3"], by="me")
        await h.control.kill(by_input["4"], by="me")

        async def found(**wanted: Any) -> list[str]:
            return [run.input for run in await h.ledger.newest(**({"ended": False} | wanted))]

        assert sorted(await found()) == ["0", "1", "2", "3"]
        assert await found(state=RunState.PAUSED) == ["3"]
        assert await found(state=RunState.KILLED) == ["4"]
        everything = await found(ended=True, sort=RunSort.OLDEST)
        assert await found(ended=True, sort=RunSort.OLDEST, limit=2, offset=2) == everything[2:4]
        for sort in RunSort:
            assert len(await found(sort=sort)) == 4
        newest = await h.ledger.newest(ended=True)
        older: list[str] = []
        while page := await h.ledger.newest(ended=True, limit=2, before=older[-1] if older else None):
            older += [run.id for run in page]
        assert older == [run.id for run in newest], "each once, also those of the same moment"
        assert await found(ended=True, before="gone") == []

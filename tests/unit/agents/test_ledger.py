"""The keeper of the logs, on a real database: one writer, fences, kills, sessions, what a restart finds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmagentos.agents.following import run_topic
from llmagentos.agents.ledger import PROGRAM, SERVER
from llmagentos.agents.sessions import SessionBusy
from llmagentos.agents.states import RunEnded
from llmagentos.api.agents import AgentSpec
from llmagentos.api.runs import (
    Answered,
    Claimed,
    Killed,
    ModelCalled,
    ModelReplied,
    Purpose,
    RunDelta,
    RunEvent,
    RunState,
    ToolAnswered,
    ToolCalled,
)
from llmagentos.core.errors import Conflict, InvalidInput, NotFound
from llmagentos.kernel.leases import LeaseLost
from llmagentos.storage.agents import AgentHostedElsewhere
from llmagentos.storage.database import StorageUnavailable
from support.house import MODULE, SPEC, house
from support.server import eventually

pytestmark = pytest.mark.anyio


def types(events: Sequence[RunEvent]) -> list[str]:
    return [event.type for event in events]


async def test_a_run_is_claimed_once_and_its_log_grows(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        claim = await h.taken()
        assert (claim.run, claim.agent, types(claim.events)) == (run, SPEC, ["created", "claimed"])
        assert await h.ledger.claim(SERVER, "server/2", wait=0) is None
        await h.ledger.append(run, claim.fence, 2, [ModelCalled(Purpose.ANSWER, "m")])
        done = [ModelReplied(Purpose.ANSWER, "hi", 3, 4), Answered("hi")]
        assert [event.seq for event in await h.ledger.append(run, claim.fence, 3, done)] == [4, 5]
        found = await h.ledger.get(run)
        assert (found.state, found.answer, found.tokens_in, found.tokens_out) == (RunState.SUCCEEDED, "hi", 3, 4)
        assert [each.id for each in await h.ledger.newest(ended=False)] == []
        assert [each.id for each in await h.ledger.newest(ended=True)] == [run]


async def test_only_its_own_host_gets_a_run(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await h.ask(name="seller")
        assert await h.ledger.claim(SERVER, "server/1", wait=0) is None
        assert await h.ledger.claim("module:other", "o/1", wait=0) is None
        assert await h.ledger.claim(MODULE, "shop/1", agents=["nobody"], wait=0) is None
        assert await h.ledger.claim(MODULE, "shop/1", agents=["seller"], wait=0) is not None


async def test_a_host_that_was_replaced_cannot_write(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        slow = await h.taken("server/1")
        h.clock.advance(11)
        quick = await h.taken("server/2")
        assert quick.fence > slow.fence
        with pytest.raises(LeaseLost):
            await h.ledger.append(run, slow.fence, 2, [ModelCalled(Purpose.ANSWER, "m")])
        with pytest.raises(LeaseLost):
            h.ledger.renew(run, slow.fence)
        await h.ledger.append(run, quick.fence, 3, [ModelCalled(Purpose.ANSWER, "m")])
        assert types(await h.ledger.events(run)) == ["created", "claimed", "claimed", "model_called"]


async def test_a_renewed_lease_lasts_whatever_the_wall_clock_does(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        claim = await h.taken()
        for _ in range(5):
            h.clock.advance(8)
            h.clock.wall += 86_400
            assert h.ledger.renew(run, claim.fence) == 10.0
        assert await h.ledger.claim(SERVER, "server/2", wait=0) is None


async def test_an_append_may_be_repeated_but_not_differ(tmp_path: Path) -> None:
    """The answer to an append can be lost on its way: the host sends it again."""
    async with house(tmp_path) as h:
        run = await h.ask()
        claim = await h.taken()
        call = [ToolCalled("a", "t", {"x": 1})]
        first = await h.ledger.append(run, claim.fence, 2, call)
        assert await h.ledger.append(run, claim.fence, 2, call) == first
        with pytest.raises(Conflict):
            await h.ledger.append(run, claim.fence, 2, [ToolCalled("a", "t", {"x": 2})])
        assert len(await h.ledger.events(run)) == 3
        last = [Answered("ok")]
        await h.ledger.append(run, claim.fence, 3, [ToolAnswered("a", 1)])
        done = await h.ledger.append(run, claim.fence, 4, last)
        assert await h.ledger.append(run, claim.fence, 4, last) == done


async def test_a_killed_run_takes_nothing_more_and_its_workers_are_told(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        claim = await h.taken()
        killed = await h.control.kill(run, by="admin:me")
        assert (killed.state, killed.killed_by) == (RunState.KILLED, "admin:me")
        assert set(h.gate.told) == {("cancel_run", run), ("forget", run), ("stop", run)}
        with pytest.raises(RunEnded):
            await h.ledger.append(run, claim.fence, 2, [ModelCalled(Purpose.ANSWER, "m")])
        with pytest.raises(LeaseLost):
            h.ledger.renew(run, claim.fence)
        with pytest.raises(RunEnded, match="been killed"):
            await h.control.kill(run, by="admin:me")
        assert await h.ledger.claim(SERVER, "server/2", wait=0) is None


async def test_a_host_cannot_write_what_is_not_its_business(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        claim = await h.taken()
        for data in (Claimed("x", 99), Killed("x")):
            with pytest.raises(InvalidInput):
                await h.ledger.append(run, claim.fence, 2, [data])


async def test_a_restarted_server_frees_its_own_runs_and_lets_modules_keep_theirs(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await h.ask()
        await h.ask(name="seller")
        own, other = await h.taken(), await h.taken("shop/1", MODULE)
        ledger = h.again()
        await ledger.begin()
        again = await ledger.claim(SERVER, "server/2", wait=0)
        assert again is not None
        assert again.fence > max(own.fence, other.fence)
        assert await ledger.claim(MODULE, "shop/2", wait=0) is None
        await ledger.append(other.run, other.fence, 2, [ModelCalled(Purpose.ANSWER, "m")])
        h.clock.advance(11)
        taken = await ledger.claim(MODULE, "shop/2", wait=0)
        assert taken is not None
        assert taken.fence > again.fence


async def test_a_released_run_is_free_at_once(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await h.ask(name="seller")
        first = await h.taken("shop/1", MODULE)
        await h.ledger.release(first.run, first.fence)
        second = await h.taken("shop/2", MODULE)
        await h.ledger.release(first.run, first.fence)  # the one before has no say
        assert h.ledger.renew(second.run, second.fence) == 10.0


async def test_who_waits_is_woken_by_a_new_run_and_by_a_lease_that_ran_out(tmp_path: Path) -> None:
    async with house(tmp_path) as h, asyncio.timeout(20), asyncio.TaskGroup() as group:
        waiting = group.create_task(h.ledger.claim(SERVER, "server/1", wait=60))
        await asyncio.sleep(0)
        run = await h.ask()
        claim = await waiting
        assert claim is not None
        assert claim.run == run
        waiting = group.create_task(h.ledger.claim(SERVER, "server/2", wait=60))
        sweeping = group.create_task(h.ledger.sweep())
        h.clock.advance(11)
        claim = await waiting
        assert claim is not None
        assert claim.run == run
        sweeping.cancel()


async def test_claims_at_once_never_share_a_run(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        runs = {await h.ask(f"{n}") for n in range(10)}
        claims = await asyncio.gather(*(h.ledger.claim(SERVER, f"server/{n}", wait=0) for n in range(14)))
        taken = [claim.run for claim in claims if claim is not None]
        assert sorted(taken) == sorted(runs)
        assert len({claim.fence for claim in claims if claim is not None}) == 10


async def test_a_session_has_one_request_at_a_time_and_remembers(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        first = await h.ask("one", session="s")
        with pytest.raises(SessionBusy):
            await h.ask("two", session="s")
        claim = await h.taken()
        await h.ledger.append(first, claim.fence, 2, [Answered("first answer")])
        second = await h.ask("two", session="s")
        created = (await h.ledger.events(second))[0].data
        assert [(turn.input, turn.answer) for turn in created.history] == [("one", "first answer")]  # type: ignore[union-attr]
        assert (await h.ledger.events(await h.ask("three", session="t")))[0].data.history == []  # type: ignore[union-attr]


async def test_ids_are_found_by_their_beginning(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        assert await h.ledger.resolve(run[:4]) == run
        assert await h.ledger.resolve(run) == run
        for unknown in ("", "%", "_", "zzzzzzzzzzzz"):
            with pytest.raises(NotFound):
                await h.ledger.resolve(unknown)


async def test_followers_see_every_event_once_and_the_pieces_between(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()

        async def follow(after: int) -> list[Any]:
            return [item async for item in h.ledger.follow(run, after=after)]

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            whole, part = group.create_task(follow(0)), group.create_task(follow(1))
            await eventually(lambda: len(h.ledger._hub._topics.get(run_topic(run), ())) == 2)  # both listen
            claim = await h.taken()
            await h.ledger.append(run, claim.fence, 2, [ModelCalled(Purpose.ANSWER, "m")])
            h.ledger.drafts.piece(run, "hi")
            await h.ledger.append(run, claim.fence, 3, [ModelReplied(Purpose.ANSWER, "hi"), Answered("hi")])
        assert [item.seq for item in whole.result() if isinstance(item, RunEvent)] == [1, 2, 3, 4, 5]
        assert [item.seq for item in part.result() if isinstance(item, RunEvent)] == [2, 3, 4, 5]
        assert [item.text for item in whole.result() if isinstance(item, RunDelta)] == ["hi"]
        assert [item.seq for item in await follow(0)] == [1, 2, 3, 4, 5]
        assert await follow(5) == []


async def test_deleting_an_agent_ends_its_runs(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        queued, running = await h.ask("a"), await h.ask("b")
        await h.taken()
        assert await h.control.kill_all_of("support", by="admin:me") == 2
        assert {(await h.ledger.get(run)).state for run in (queued, running)} == {RunState.KILLED}


async def test_a_run_whose_agent_is_gone_fails(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run = await h.ask()
        await h.agents.delete("support")
        assert await h.ledger.claim(SERVER, "server/1", wait=0) is None
        assert "was deleted" in str((await h.ledger.get(run)).error)


async def test_versions_are_kept_and_a_run_keeps_its_own(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await h.ask()
        changed = AgentSpec(name="support", instructions="new")
        assert (await h.agents.put(changed, host=SERVER, by="me"))[1] == "changed"
        assert (await h.agents.put(changed, host=SERVER, by="me"))[1] == "unchanged"
        assert (await h.taken()).agent == SPEC
        assert [record.version for record in await h.agents.versions("support")] == [2, 1]
        for n in range(25):
            await h.agents.put(AgentSpec(name="support", instructions=str(n)), host=SERVER, by="me")
        assert [record.version for record in await h.agents.versions("support")] == list(range(27, 7, -1))
        with pytest.raises(AgentHostedElsewhere):
            await h.agents.put(SPEC, host=MODULE, by="x")


async def test_old_runs_are_pruned_with_their_events(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        old = await h.ask("old")
        await h.control.kill(old, by="me")
        h.clock.advance(31 * 86_400)
        new, waiting = await h.ask("new"), await h.ask("waiting")
        await h.control.kill(new, by="me")
        assert await h.records.prune() == 1
        assert {each.id for each in await h.ledger.newest(ended=True)} == {new, waiting}
        assert await h.records.events(old) == []


async def test_who_no_longer_waits_gets_no_run(tmp_path: Path) -> None:
    """A claim that is cancelled at any moment leaves the run to the next."""
    async with house(tmp_path) as h:
        run = await h.ask()
        for yields in range(40):
            waiting = asyncio.create_task(h.ledger.claim(SERVER, "gone", wait=60))
            for _ in range(yields):
                await asyncio.sleep(0.0005)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            if waiting.cancelled():
                claim = await h.taken("next")
            else:
                claim = waiting.result()
                assert claim is not None
            assert claim.run == run
            await h.ledger.release(run, claim.fence)


@pytest.mark.parametrize("what", ["create", "released"])
async def test_what_is_stored_as_its_caller_goes_is_offered_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A run that was begun or given up: whoever waits for one would not look again for a long time."""
    async with house(tmp_path) as h, asyncio.timeout(40):
        run = claim = None
        if what == "released":
            run, claim = await h.ask(), await h.taken()
        stored, go, do = asyncio.Event(), asyncio.Event(), getattr(h.records, what)
        looked, look = asyncio.Event(), h.records.claimable

        async def looks(*given: Any, **more: Any) -> Any:
            found = await look(*given, **more)
            looked.set()
            return found

        async def slow(*given: Any) -> Any:
            result = await do(*given)
            stored.set()
            await go.wait()  # the answer is on its way
            return result

        monkeypatch.setattr(h.records, what, slow)
        monkeypatch.setattr(h.records, "claimable", looks)
        waiting = asyncio.create_task(h.ledger.claim(SERVER, "next", wait=3600))
        await looked.wait()
        asking = asyncio.create_task(h.ask() if claim is None else h.ledger.release(str(run), claim.fence))
        await stored.wait()
        asking.cancel()
        await asyncio.sleep(0)
        go.set()
        found = await waiting
        assert found is not None
        assert run in (None, found.run)
        await asyncio.gather(asking, return_exceptions=True)
        assert asking.cancelled()


async def test_the_sweep_goes_on_when_storage_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that ran out meanwhile is not forgotten: nobody else would end the run of a program."""
    async with house(tmp_path) as h, asyncio.timeout(20):
        program: Any = SimpleNamespace(spec=AgentSpec(name="script"), version=0, host=PROGRAM)
        run = (await h.ledger.create(program, "script.py", by="admin:me")).id
        await h.ledger.take(run, "laptop/1")
        find, away = h.records.row, [True]

        async def row(wanted: str) -> Any:
            if away:
                away.pop()
                raise StorageUnavailable("away")
            return await find(wanted)

        monkeypatch.setattr(h.records, "row", row)
        monkeypatch.setattr("llmagentos.agents.ledger.SWEEP_S", 0.01)
        h.clock.advance(60.0)
        sweeping = asyncio.create_task(h.ledger.sweep())
        while (await h.ledger.get(run)).state is not RunState.FAILED:
            await asyncio.sleep(0.01)
        assert away == []
        sweeping.cancel()


async def test_a_run_has_one_writer_however_many_runs_there_are(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        lock = h.ledger._lock
        inside: list[int] = []

        async def write(number: int) -> None:
            async with lock("one"):
                inside.append(number)
                await asyncio.sleep(0.01)
                inside.remove(number)
                assert inside == []

        async def others() -> None:
            for n in range(2000):
                async with lock(str(n)):
                    await asyncio.sleep(0)

        await asyncio.gather(others(), *(write(n) for n in range(5)))
        assert len(h.ledger._writing) == 0

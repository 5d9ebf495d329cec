"""Control that meets other control, or what a run does, in the middle: at awaits of storage that tests hold open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llmagentos.agents.admission import Unlimited
from llmagentos.api.runs import ModelCalled, Purpose, RunState
from llmagentos.core.errors import Conflict
from support.house import House, house

pytestmark = pytest.mark.anyio
ME = "admin:me"
PATIENCE_S = 20.0
LOOK_S = 0.1
"""For so long something is given the chance to do what it must not."""


class Held:
    """Calls of a method of storage that wait, before or after the real thing, until they are let go."""

    def __init__(self, of: Any, method: str, *, after: bool = False, only: str | None = None) -> None:
        self.begun, self._go = asyncio.Event(), asyncio.Event()
        real = getattr(of, method)

        async def held(*given: Any, **more: Any) -> Any:
            if only is not None and only not in (given[0], getattr(given[0], "id", None)):
                return await real(*given, **more)
            found = await real(*given, **more) if after else None
            self.begun.set()
            await self._go.wait()
            return found if after else await real(*given, **more)

        setattr(of, method, held)

    def let(self) -> None:
        self._go.set()


@asynccontextmanager
async def above_and_below(tmp_path: Path, *, below: int = 1) -> AsyncIterator[tuple[House, str, list[str]]]:
    """A run under way, and runs that it asked for."""
    async with asyncio.timeout(PATIENCE_S), house(tmp_path) as h:
        above = await h.ask()
        await h.taken()
        yield h, above, [await h.ask(parent=above) for _ in range(below)]


async def state(h: House, run: str) -> RunState:
    return (await h.ledger.get(run)).state


@pytest.mark.parametrize("act", ["kill", "pause"])
async def test_what_a_run_asks_for_at_that_moment_shares_its_fate(tmp_path: Path, act: str) -> None:
    async with above_and_below(tmp_path, below=0) as (h, above, _):
        held = Held(h.records, "create")
        asking = asyncio.create_task(h.ask(parent=above))
        await held.begun.wait()
        acting = asyncio.create_task(getattr(h.control, act)(above, by=ME))
        await asyncio.wait([acting], timeout=LOOK_S)
        held.let()
        below = await asking
        await acting
        assert await state(h, below) is await state(h, above)


async def test_a_run_that_is_resumed_while_it_is_paused_has_nothing_paused_below(tmp_path: Path) -> None:
    """Else it would wait for a run that nobody lets go on."""
    async with above_and_below(tmp_path) as (h, above, (below,)):
        held = Held(h.records, "children")
        pausing = asyncio.create_task(h.control.pause(above, by=ME))
        await held.begun.wait()
        resuming = asyncio.create_task(h.control.resume(above, by=ME))
        await asyncio.wait([resuming], timeout=LOOK_S)
        held.let()
        await asyncio.gather(pausing, resuming)
        assert [await state(h, run) for run in (above, below)] == [RunState.RUNNING, RunState.QUEUED]


async def test_a_run_below_that_somebody_resumes_at_that_moment_keeps_no_other_paused(tmp_path: Path) -> None:
    async with above_and_below(tmp_path, below=2) as (h, above, below):
        await h.control.pause(above, by=ME)
        held = Held(h.records, "append", only=below[0])
        other = asyncio.create_task(h.control.resume(below[0], by="admin:you"))
        await held.begun.wait()
        resuming = asyncio.create_task(h.control.resume(above, by=ME))
        await asyncio.wait([resuming], timeout=LOOK_S)
        held.let()
        await asyncio.gather(other, resuming)
        assert [await state(h, run) for run in below] == [RunState.QUEUED, RunState.QUEUED]


async def test_a_kill_whose_caller_goes_away_is_carried_through(tmp_path: Path) -> None:
    """It is stored by then: whoever watches hears of it, the engine stops, and what is below ends too."""
    async with above_and_below(tmp_path) as (h, above, (below,)):
        ended: list[str] = []
        h.ledger.on_change.append(lambda run, now, _: ended.append(run) if now.ended_at is not None else None)
        held = Held(h.records, "append", after=True, only=above)
        killing = asyncio.create_task(h.control.kill(above, by=ME))
        await held.begun.wait()
        killing.cancel()
        await asyncio.wait([killing], timeout=LOOK_S)
        held.let()
        await asyncio.gather(killing, return_exceptions=True)
        assert ended == [above, below]
        assert [await state(h, run) for run in (above, below)] == [RunState.KILLED, RunState.KILLED]
        assert {("cancel_run", above), ("stop", above), ("cancel_run", below)} <= set(h.gate.told)


async def test_an_event_whose_host_goes_away_is_told_when_it_is_stored(tmp_path: Path) -> None:
    async with above_and_below(tmp_path, below=0) as (h, run, _):
        told: list[str] = []
        h.ledger.on_change.append(lambda _, __, events: told.extend(event.type for event in events))
        held = Held(h.records, "append", after=True)
        fence = (await h.ledger.state(run)).fence
        adding = asyncio.create_task(h.ledger.append(run, fence, 2, [ModelCalled(Purpose.ANSWER, "m")]))
        await held.begun.wait()
        adding.cancel()
        await asyncio.wait([adding], timeout=LOOK_S)
        held.let()
        await asyncio.gather(adding, return_exceptions=True)
        assert told == ["model_called"]
        assert [event.type for event in await h.ledger.events(run)][-1:] == told


async def test_what_a_run_left_behind_is_ended_by_killing_it_again(tmp_path: Path) -> None:
    async with above_and_below(tmp_path) as (h, above, (below,)):

        async def away(_: str) -> Any:
            raise Conflict("storage is away")

        children, h.records.children = h.records.children, away  # type: ignore[method-assign]
        with pytest.raises(Conflict, match="away"):
            await h.control.kill(above, by=ME)
        h.records.children = children  # type: ignore[method-assign]
        with pytest.raises(Conflict, match="killed"):
            await h.control.kill(above, by=ME)
        assert await state(h, below) is RunState.KILLED


@pytest.mark.parametrize("act", ["kill", "pause"])
async def test_a_run_that_ends_before_it_is_claimed_takes_no_place(tmp_path: Path, act: str) -> None:
    """A place of its budget would never be given back: nobody ends it again."""

    class Places(Unlimited):
        async def admit(self, run: str) -> bool:
            admitted.append(run)
            return True

    admitted: list[str] = []
    async with asyncio.timeout(PATIENCE_S), house(tmp_path) as h:
        h.ledger.budgets = Places()
        run = await h.ask()
        held = Held(h.records, "claimable", after=True)
        claiming = asyncio.create_task(h.ledger.claim("server", "server/1", wait=0))
        await held.begun.wait()
        await getattr(h.control, act)(run, by=ME)
        held.let()
        assert (await claiming, admitted) == (None, [])
        with pytest.raises(Conflict):
            await h.ledger.take(run, "me")
        assert admitted == []

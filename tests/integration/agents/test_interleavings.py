"""Runs that are steered while they work: whatever comes in whatever order, each ends once, and as it was asked to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llmagentos.api.runs import ToolAnswered
from support.steering import World, world

TOOLS = ("look", "pay", "help")
STEPS = st.lists(st.sampled_from(TOOLS), min_size=1, max_size=2).map("+".join)
PLANS = st.lists(STEPS, min_size=1, max_size=2).map(",".join)
WHAT = ("model", "model", "tool", "tool", "pause", "pause_now", "resume", "resume", "kill", "approve", "deny", "expire")
LONG = 30
"""In place of a number of turns of the event loop: as long as storage takes."""
ACTS = st.tuples(st.sampled_from(WHAT), st.integers(0, 9), st.sampled_from((0, 1, 2, 5, LONG, LONG)))


async def play(it: World, plans: Sequence[str], acts: Sequence[tuple[str, int, int]]) -> None:
    """Ask for runs; let models and tools end, and steer, at any await of what is under way; then let all go on."""
    it.models.open = it.tools.open = False
    for plan in plans:
        await it.ask(plan)
    for what, number, turns in acts:
        it.act(what, number)
        for _ in range(turns % LONG):
            await asyncio.sleep(0)
        if turns == LONG:
            await asyncio.sleep(0.004)
    await it.to_the_end()
    await it.judge()


def test_runs_end_once_and_as_asked_whatever_comes_in_whatever_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_database: Callable[[], str | None]
) -> None:
    with asyncio.Runner() as runner:
        opened = world(tmp_path, monkeypatch, new_database())
        it = runner.run(opened.__aenter__())

        @settings(max_examples=20, deadline=None, phases=[Phase.generate])  # the moments are not the same when replayed
        @given(st.lists(PLANS, min_size=1, max_size=3), st.lists(ACTS, min_size=4, max_size=24))
        def interleaved(plans: list[str], acts: list[tuple[str, int, int]]) -> None:
            runner.run(play(it, plans, acts))

        try:
            interleaved()
        finally:
            runner.run(opened.__aexit__(None, None, None))


@pytest.mark.anyio
async def test_a_paused_run_does_not_wait_for_the_run_that_it_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_database: Callable[[], str | None]
) -> None:
    """Its time would run meanwhile, and at the end of it the other run would be stopped."""
    async with asyncio.timeout(60), world(tmp_path, monkeypatch, new_database()) as it:
        run = await it.ask("help")

        async def holder() -> str:
            row = await it.records.row(run)
            assert row is not None
            return row.holder

        while not (below := await it.below(run)):
            it.models.let(0)
            await asyncio.sleep(0.01)
        assert await holder()
        await it.control.pause(run, by="admin:me")
        while await holder():
            await asyncio.sleep(0.01)
        it.models.open = True
        it.tools.open = True
        await it.to_the_end()
        await it.judge()
        events = await it.records.events(run)
        assert [event.data.error for event in events if isinstance(event.data, ToolAnswered)] == [None]
        assert len(await it.records.newest(ended=True)) == 1 + len(below)

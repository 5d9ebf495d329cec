"""Runs whose tools are looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmagentos.agents.absent import Absent
from llmagentos.agents.states import RunPaused
from llmagentos.core.errors import Unavailable
from support.house import house

pytestmark = pytest.mark.anyio


async def looking(error: Exception | None = None) -> Any:
    if error is not None:
        raise error
    return "tools"


async def test_what_is_away_is_told_until_it_is_there_or_the_run_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        absent = Absent(h.ledger.state)
        h.ledger.on_change.append(absent.changed)
        run = await h.ask()
        for ends in ("found", "ended"):
            with pytest.raises(Unavailable):
                await absent.watched(run, looking(Unavailable("restarts")))
            assert absent.told() == {run: "restarts"}
            if ends == "found":
                assert await absent.watched(run, looking()) == "tools"
            else:
                await h.control.kill(run, by="admin:me")
            assert absent.told() == {}


async def test_a_paused_run_does_not_get_its_tools(tmp_path: Path) -> None:
    """With them the call that was interrupted would be made again."""
    async with house(tmp_path) as h:
        absent = Absent(h.ledger.state)
        run = await h.ask()
        await h.taken()
        await h.control.pause(run, by="admin:me")
        for error in (None, Unavailable("restarts")):
            with pytest.raises(RunPaused):
                await absent.watched(run, looking(error))
        assert absent.told() == {}

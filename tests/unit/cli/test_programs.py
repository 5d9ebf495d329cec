"""A program as a run: what `llmctl exec --agent` does beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmagentos.api.control import Program
from llmagentos.cli import programs


@pytest.mark.anyio
async def test_a_log_that_ends_while_the_program_runs_is_not_asked_for_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run was lost, say: until that is noticed the server would hear of nothing else."""
    asked = 0

    async def over(*_: Any, **__: Any) -> AsyncIterator[Any]:
        nonlocal asked
        asked += 1
        for nothing in ():
            yield nothing

    monkeypatch.setattr(programs.runs, "follow", over)
    nobody: Any = None
    hosted = programs._Hosted(nobody, Program("r1", 1, 10.0, "secret"), nobody)
    following = asyncio.create_task(hosted._follow())
    await asyncio.sleep(0.2)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert asked == 1

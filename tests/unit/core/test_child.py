"""A supervised process: what it wrote before it died, and nothing that others wrote before it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from llmagentos.core.child import Child, ChildSpec


@pytest.mark.anyio
async def test_the_end_of_its_log_begins_with_its_start(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("an old fault\n")
    told = asyncio.Event()
    child = Child(
        ChildSpec("x", ("/bin/sh", "-c", "echo a new fault; exit 3"), log, os.environ),
        say=lambda _: told.set(),
        changed=lambda: None,
    )
    running = asyncio.create_task(child.run())
    async with asyncio.timeout(40):
        await told.wait()
        assert child.status.last_exit == "ended with exit code 3"
        assert child.tail() == "a new fault"
        log.write_text("")
        assert child.tail() == ""
        child.stop()
        await running


@pytest.mark.anyio
@pytest.mark.parametrize("at_once", [False, True])
async def test_one_that_is_told_to_stop_while_it_is_started_has_ended_only_when_it_has(
    tmp_path: Path, at_once: bool
) -> None:
    """Otherwise whoever stops it would go on beside it, and nobody would end it when it does not heed SIGTERM."""
    deaf = ("/bin/sh", "-c", "trap '' TERM; sleep 60") if at_once else ("/bin/sleep", "60")
    child = Child(ChildSpec("x", deaf, tmp_path / "x.log", os.environ), say=print, changed=lambda: None)
    running = asyncio.create_task(child.run())
    await asyncio.sleep(0)
    assert child.status.pid is None
    child.kill() if at_once else child.stop()
    async with asyncio.timeout(40):
        await child.ended.wait()
        assert child.status.last_exit == f"was ended by {'SIGKILL' if at_once else 'SIGTERM'}"
        await running
    assert child.status.state == "stopped"

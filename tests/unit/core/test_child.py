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

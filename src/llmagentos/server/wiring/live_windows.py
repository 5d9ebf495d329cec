"""Maintenance windows follow their configuration file: a change of them needs no restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from llmagentos.core import log
from llmagentos.core.config import load
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.fleet.windows import Window

LOOK_S = 1.0

_log = log.get(__name__)


async def follow(file: Path, become: Callable[[Mapping[str, Window]], bool]) -> NoReturn:
    """Read `file` whenever it changes, for ever. What cannot be read changes nothing, and is told once."""
    seen: object = ()
    while True:
        if (now := await asyncio.to_thread(_version, file)) == seen:
            await asyncio.sleep(LOOK_S)
            continue
        seen = now
        try:
            windows = (await asyncio.to_thread(load, file)).config.windows
            if become(windows):
                _log.info("maintenance windows changed", windows=sorted(windows))
        except (LLMAgentOSError, OSError) as error:
            _log.warning("the changed configuration cannot be read: windows stay as they were", error=str(error))


def _version(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

"""Follows units of systemd's journal through `journalctl`, on from the last entry that was kept."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from llmagentos.api.telemetry import MAX_LINE, MAX_LINES
from llmagentos.core import log
from llmagentos.core.files import write_whole
from llmagentos.core.lifecycle import Backoff, reap
from llmagentos.fleet.node.collect.wanted import Log

MAX_ENTRY = 256 * 1024
_log = log.get(__name__)
Entry = tuple[float, str, str, str]
"""Time, source, text, cursor."""


class Journal:
    """Entries wait here until they are taken; `journalctl` waits with us when too many do."""

    def __init__(self, cursors: Path) -> None:
        self._file = cursors
        self._cursors = self._load()
        self._waiting: deque[Entry] = deque()
        self._room = asyncio.Event()
        self._running: dict[str, tuple[str, asyncio.Task[None]]] = {}

    def _load(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.MsgspecError):
            return {}

    def want(self, logs: Mapping[str, Log]) -> None:
        """Follow the units of these sources and no others."""
        wanted = {name: entry.journal for name, entry in logs.items() if entry.journal}
        for name, (unit, task) in list(self._running.items()):
            if wanted.get(name) != unit:
                task.cancel()
                del self._running[name]
        for name, unit in wanted.items():
            if name not in self._running:
                self._running[name] = (unit, asyncio.create_task(self._follow(name, unit)))

    def take(self, most: int) -> list[Entry]:
        """Up to `most` entries that came since."""
        found = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._room.set()
        return found

    def save(self, taken: list[Entry]) -> None:
        """Keep that these entries need not come again. Raises `OSError`."""
        if taken:
            self._cursors |= {source: cursor for _, source, _, cursor in taken if cursor}
            write_whole(self._file, msgspec.json.encode(self._cursors))

    async def close(self) -> None:
        """End all."""
        tasks = [task for _, task in self._running.values()]
        self.want({})
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, name: str, unit: str) -> None:
        backoff = Backoff(first=1.0, most=300.0)
        while True:
            try:
                await self._read(name, unit)
            except OSError as error:
                _log.warning("the journal cannot be read", source=name, error=str(error))
            await asyncio.sleep(backoff.died(0.0))

    async def _read(self, name: str, unit: str) -> None:
        since = ["--after-cursor", self._cursors[name]] if name in self._cursors else ["--lines", "0"]
        of = [] if unit == "*" else ["--unit", unit]
        process = await asyncio.create_subprocess_exec(
            "journalctl",
            "--follow",
            "--output=json",
            "--quiet",
            *since,
            *of,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=MAX_ENTRY,
        )
        assert process.stdout is not None
        try:
            while True:
                try:
                    line = await process.stdout.readline()
                except ValueError:  # longer than MAX_ENTRY: left out
                    continue
                if not line:
                    return
                if (entry := parse(name, line)) is not None:
                    await self._put(entry)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await reap(process)

    async def _put(self, entry: Entry) -> None:
        while len(self._waiting) >= MAX_LINES:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(entry)


def parse(source: str, line: bytes) -> Entry | None:
    """One entry of `journalctl --output=json`; None when it is not one, or has no text."""
    try:
        fields: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        at = int(fields["__REALTIME_TIMESTAMP"]) / 1e6
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError):
        return None
    text = fields.get("MESSAGE")
    if isinstance(text, list):  # as journalctl tells bytes that are no UTF-8
        text = bytes(byte for byte in text if isinstance(byte, int) and 0 <= byte < 256).decode("utf-8", "replace")
    if not isinstance(text, str) or not text:
        return None
    who = fields.get("SYSLOG_IDENTIFIER")
    said = f"{who}: {text}" if isinstance(who, str) else text
    return at, source, said[:MAX_LINE], str(fields.get("__CURSOR", ""))

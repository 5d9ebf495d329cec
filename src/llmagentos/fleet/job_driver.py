"""Lets held jobs run when they may: looks at each after every change and every second.

Everything it knows is in the database and every change is decided anew inside its transaction, so it
may be killed at any point, and several servers may do this at once.
"""

from __future__ import annotations

import asyncio

from llmagentos.api.job_control import Batch
from llmagentos.core import log
from llmagentos.core.clock import Clock
from llmagentos.core.events import Hub
from llmagentos.fleet.job_gates import Verdict, drive
from llmagentos.fleet.job_writer import JobWriter
from llmagentos.fleet.rollout import BY, Checks
from llmagentos.fleet.windows import Windows
from llmagentos.storage.job_changes import LockTaken, Seen
from llmagentos.storage.job_tables import ENDED
from llmagentos.storage.jobs import JobRecords

TICK_S = 1.0
PACE_S = 0.05
"""After a change, so that a burst of them is one look."""
MOST = 1000
"""Jobs that are looked at in one round."""
STEPS = 100
"""Changes of one job in one round."""
WAKE = "job-driver"

_log = log.get(__name__)


class JobDriver:
    """The loop over all jobs that something more than their queues decides on."""

    def __init__(
        self, records: JobRecords, writer: JobWriter, checks: Checks, windows: Windows, hub: Hub, clock: Clock
    ) -> None:
        self._records = records
        self._writer = writer
        self._checks = checks
        self._windows = windows
        self._hub = hub
        self._clock = clock
        self._asked: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._verdicts: dict[tuple[int, int], Verdict] = {}

    async def run(self) -> None:
        """Drive, for ever."""
        with self._hub.subscribe("jobs", WAKE) as wakes:
            async with asyncio.TaskGroup() as group:
                while True:
                    try:
                        await self.look(group)
                    except Exception as error:  # a supervising loop: a database that is away must not end it
                        _log.warning("looking after jobs failed", error=str(error))
                    try:
                        await wakes.next(TICK_S)
                        await asyncio.sleep(PACE_S)
                        while True:
                            await wakes.next(0)
                    except TimeoutError:
                        continue
                    except StopAsyncIteration:
                        return

    async def look(self, group: asyncio.TaskGroup) -> None:
        """One round over all of them, in the order in which they may take a lock."""
        open_ = set()
        for row in await self._records.driven(limit=MOST):
            open_.add(row.id)
            await self._bring_on(row.id, group)
        for key in [key for key in self._asked if key[0] not in open_]:
            self._asked.pop(key).cancel()
            self._verdicts.pop(key, None)

    async def _bring_on(self, job: int, group: asyncio.TaskGroup) -> None:
        for _ in range(STEPS):
            seen = await self._records.changes.seen(job)
            if seen.row.state in ENDED or not await self._step(seen, group):
                return

    async def _step(self, seen: Seen, group: asyncio.TaskGroup) -> bool:
        now, window = self._clock.time(), seen.row.spec.window
        opening = self._windows.opening(window, now) if window is not None else None
        verdict = self._verdict(seen, group)
        enter = self._writer.entering
        if not drive(seen, now, enter, opening=opening, verdict=verdict):
            return False
        try:
            await self._writer.change(
                seen.row.id, BY, lambda found: drive(found, now, enter, opening=opening, verdict=verdict)
            )
        except LockTaken:
            return False
        return True

    def _verdict(self, seen: Seen, group: asyncio.TaskGroup) -> Verdict | None:
        batch = next((each for each in seen.batches if _asks(each)), None)
        if batch is None:
            return None
        key = (seen.row.id, batch.number)
        if key in self._verdicts:
            return self._verdicts[key]
        if key not in self._asked or self._asked[key].done():
            self._asked[key] = group.create_task(self._ask(seen, batch))
        return None

    async def _ask(self, seen: Seen, batch: Batch) -> None:
        key = (seen.row.id, batch.number)
        try:
            self._verdicts[key] = await self._checks.verdict(seen, batch)
        except Exception as error:  # as above: asked again a moment later
            _log.warning("the check of a batch failed", job_id=str(key[0]), batch=key[1], error=str(error))
            await asyncio.sleep(TICK_S)
        self._hub.publish(WAKE, key)


def _asks(batch: Batch) -> bool:
    return batch.state == "gating" or (batch.kind == "rollback" and batch.state == "running")

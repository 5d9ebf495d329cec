"""Lets held jobs run when they may: looks at each after its changes, and at all of them about every second.

Everything it knows is in the database and every change is decided anew inside its transaction, so it
may be killed at any point, and several servers may do this at once.
"""

from __future__ import annotations

import asyncio
import time

from llmagentos.api.job_control import Batch
from llmagentos.core import log
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Unavailable
from llmagentos.core.events import LAGGED, Hub, Subscription
from llmagentos.fleet.job_gates import Verdict, cancel, drive
from llmagentos.fleet.job_news import JobNews
from llmagentos.fleet.job_writer import JobWriter
from llmagentos.fleet.rollout import BY, Checks
from llmagentos.fleet.windows import Windows
from llmagentos.storage.job_changes import Changes, LockTaken, Seen
from llmagentos.storage.job_tables import ENDED
from llmagentos.storage.jobs import Driven, JobRecords

TICK_S = 1.0
PACE_S = 0.05
"""After a change, so that a burst of them is one look."""
REST = 4.0
"""Between two looks so many times as long as a look took: jobs on many nodes leave time for their nodes."""
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
        self._open: set[int] | None = None

    async def run(self) -> None:
        """Drive, for ever."""
        with self._hub.subscribe("jobs", WAKE) as wakes:
            async with asyncio.TaskGroup() as group:
                only: set[int] | None = None
                all_at = 0.0
                while True:
                    began = time.monotonic()
                    try:
                        await self.look(group, only=only)
                    except Exception as error:  # a supervising loop: a database that is away must not end it
                        _log.warning("looking after jobs failed", error=str(error))
                    ended = time.monotonic()
                    rest = REST * (ended - began)
                    if only is None:
                        all_at = ended + max(TICK_S, rest)
                    try:
                        only = await _changed(wakes, all_at, max(PACE_S, rest))
                    except StopAsyncIteration:
                        return

    async def look(self, group: asyncio.TaskGroup, *, only: set[int] | None = None) -> None:
        """One round over all of them or `only` some and those that want their locks, in the order in which they may."""
        known = await self._records.driven()
        open_ = {job.id for job in known}
        chosen = open_ if only is None else only
        locks = {job.lock for job in known if job.id in chosen} - {None}
        for job in known:
            if job.id in chosen or job.lock in locks:
                await self._alone(job, group)
        for key in [key for key in self._asked if key[0] not in open_]:
            self._asked.pop(key).cancel()
            self._verdicts.pop(key, None)
        if self._open is None or self._open - open_:
            await self._end_orphans()
        self._open = open_

    async def _alone(self, job: Driven, group: asyncio.TaskGroup) -> None:
        try:
            await self._bring_on(job, group)
        except Unavailable:  # the database is away: for all of them
            raise
        except Exception as error:  # a supervising loop: what is wrong with one job holds up no other
            _log.error("a job cannot be brought on", job_id=str(job.id), error=str(error) or type(error).__name__)

    async def _end_orphans(self) -> None:
        """The checks of a job that has ended, because its time was over, end with it."""
        for child, parent in await self._records.orphans():
            message = f"job {parent} has ended"

            def ending(seen: Seen, message: str = message) -> Changes:
                return cancel(seen, self._writer.entering, message)

            await self._writer.change(child, BY, ending)

    async def _bring_on(self, job: Driven, group: asyncio.TaskGroup) -> None:
        for _ in range(STEPS):
            seen = await self._records.changes.seen(job.id)
            if job.holder is not None and seen.holder is None:
                return  # its lock became free in the middle of this round: the next one begins with whose turn it is
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
        self._hub.publish(WAKE, key[0])


async def _changed(wakes: Subscription, all_at: float, rest: float) -> set[int] | None:
    """The jobs that changed, of a burst all; None when all have to be looked at: in time, or because a lock is free.

    Raises `StopAsyncIteration` when there will be no more changes.
    """
    news: list[object] = []
    try:
        news.append(await wakes.next(max(0.0, all_at - time.monotonic())))
        await asyncio.sleep(rest)
        while True:
            news.append(await wakes.next(0))
    except TimeoutError:
        pass
    found = {each.job if isinstance(each, JobNews) else each for each in news}
    ended = any(isinstance(each, JobNews) and each.ended for each in news)
    late = time.monotonic() >= all_at
    return None if ended or late or LAGGED in found else {each for each in found if isinstance(each, int)}


def _asks(batch: Batch) -> bool:
    return batch.state == "gating" or (batch.kind == "rollback" and batch.state == "running")

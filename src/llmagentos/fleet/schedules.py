"""Schedules: jobs made by the clock, each time once however many servers there are.

A time is taken by a row with the schedule's name and that time as its key. Whoever took it makes the
job, with a key of the same: when that server dies in between, another one makes the same job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from llmagentos.api.jobs import Job, JobSpec
from llmagentos.api.schedules import Fire, Schedule, ScheduleSpec, TemplateUse
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.errors import CallerError, Conflict, InvalidInput, NotFound, Unavailable, nearest
from llmagentos.core.events import Hub
from llmagentos.fleet import cron, schedule_times
from llmagentos.fleet.jobs import Jobs, Origin
from llmagentos.storage.job_changes import masked
from llmagentos.storage.schedules import FireRow, ScheduleRecords, ScheduleRow

TICK_S = 1.0
RETRY_S = 10.0
"""After so long a time that was taken and of which nothing came is seen to by whoever finds it."""
ELSEWHERE_S = 20.0
"""So long a server that lacks the bundle leaves a time to one that has it."""
MOST = 1000
SHOWN = 20
NEXT = 3

Launch = Callable[[TemplateUse, str, Origin, str], Awaitable[Job]]
BundleOf = Callable[[TemplateUse], Awaitable[str | None]]
Check = Callable[[TemplateUse, str], Awaitable[None]]

_log = log.get(__name__)


class Schedules:
    """All schedules. `launch` makes a job of a template, `check` says whether it could, `bundle_of` what it needs."""

    def __init__(
        self,
        records: ScheduleRecords,
        jobs: Jobs,
        hub: Hub,
        clock: Clock,
        *,
        launch: Launch,
        check: Check,
        bundle_of: BundleOf,
    ) -> None:
        self._records = records
        self._jobs = jobs
        self._hub = hub
        self._clock = clock
        self._launch = launch
        self._check = check
        self._bundle_of = bundle_of

    # --- people -------------------------------------------------------------------------------

    async def add(self, name: str, spec: ScheduleSpec, by: str) -> Schedule:
        """Make a schedule. Raises `Conflict` when the name is taken, and what a job of it would raise now."""
        await self._require_fit(spec, by)
        if len(await self._records.all()) >= MOST:
            raise Conflict(f"there are {MOST} schedules: no more", hint="`llmctl schedules delete NAME`")
        if not await self._records.add(name, spec, by):
            raise Conflict(f"there is a schedule {name!r} already", hint=f"`llmctl schedules delete {name}` first")
        _log.info("schedule made", schedule=name, by=by)
        return await self._changed(name)

    async def change(self, name: str, spec: ScheduleSpec, by: str) -> Schedule:
        """Another time or something else to run; without a job and a template what it ran before.

        Raises `NotFound`, and what a job of it would raise now.
        """
        row = await self._require(name)
        if spec.job is None and spec.template is None:
            spec = msgspec.structs.replace(spec, job=row.spec.job, template=row.spec.template)
        await self._require_fit(spec, by)
        if not await self._records.change(name, spec, by):
            raise await self._unknown(name)
        _log.info("schedule changed", schedule=name, by=by)
        return await self._changed(name)

    async def _require_fit(self, spec: ScheduleSpec, by: str) -> None:
        if (spec.cron is None) == (spec.every_s is None):
            raise InvalidInput("a schedule has either cron or every_s")
        if (spec.job is None) == (spec.template is None):
            raise InvalidInput("a schedule has either a job or a template")
        cron.zone_of(spec.zone)
        if spec.cron is not None:
            cron.check(spec.cron, spec.zone)
        if spec.jitter_s and (gap := schedule_times.least_gap(spec, self._clock.time())) <= spec.jitter_s:
            raise InvalidInput(f"a jitter of {spec.jitter_s:g} s is longer than the {gap:g} s between two times")
        if spec.job is not None:
            if spec.job.secrets or spec.job.idempotency_key is not None:
                raise InvalidInput("the job of a schedule has neither secrets nor an idempotency key")
            await self._jobs.check(spec.job)
        if spec.template is not None:
            await self._check(spec.template, by)

    async def listing(self) -> list[Schedule]:
        """All schedules by name, each with its last time."""
        return [await self._schedule(row, fires=1) for row in await self._records.all()]

    async def show(self, name: str) -> Schedule:
        """One schedule. Raises `NotFound`."""
        return await self._schedule(await self._require(name), fires=SHOWN)

    async def pause(self, name: str, by: str, *, paused: bool) -> Schedule:
        """Pause a schedule, or let it go on: what was due meanwhile is not made up for."""
        if not await self._records.pause(name, by, paused=paused):
            raise await self._unknown(name)
        _log.info("schedule paused" if paused else "schedule resumed", schedule=name, by=by)
        return await self._changed(name)

    async def delete(self, name: str) -> None:
        """Delete a schedule; its jobs stay. Raises `NotFound`."""
        if not await self._records.remove(name):
            raise await self._unknown(name)
        self._hub.publish("schedules", name)

    async def run_now(self, name: str, by: str) -> Job:
        """Make a job of it out of turn, paused or not."""
        row = await self._require(name)
        fire = await self._records.begin(row)
        try:
            job = await self._make(fire)
        except CallerError as error:
            await self._records.settle(fire, error=error.message[:1000])
            raise
        await self._records.settle(fire, job=job.summary.id)
        _log.info("schedule run out of turn", schedule=name, by=by, job_id=str(job.summary.id))
        self._hub.publish("schedules", name)
        return job

    async def bundles(self) -> set[str]:
        """Every bundle that a schedule needs."""
        return await self._records.bundles()

    async def prune(self, days: float) -> None:
        """Forget times that are more than `days` days ago."""
        await self._records.prune(days=days)

    async def _changed(self, name: str) -> Schedule:
        self._hub.publish("schedules", name)
        return await self.show(name)

    async def _require(self, name: str) -> ScheduleRow:
        row = await self._records.find(name)
        if row is None:
            raise await self._unknown(name)
        return row

    async def _unknown(self, name: str) -> NotFound:
        close = nearest(name, [row.name for row in await self._records.all()])
        hint = f"did you mean {close!r}?" if close else "`llmctl schedules` lists them"
        return NotFound(f"there is no schedule {name!r}", hint=hint)

    async def _schedule(self, row: ScheduleRow, *, fires: int) -> Schedule:
        spec = row.spec
        if spec.job is not None:
            spec = msgspec.structs.replace(spec, job=masked(spec.job))
        now = max(row.since, self._clock.time())
        upcoming = [] if row.paused else schedule_times.upcoming(spec, row.created, now, NEXT)
        found = await self._records.fires(row.name, limit=fires)
        last = [Fire(fire.due, fire.at, fire.job, fire.error) for fire in found]
        return Schedule(row.name, spec, row.paused, row.created, row.created_by, row.changed_by, upcoming, last)

    # --- the clock ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Make jobs when they are due, for ever."""
        while True:
            try:
                await self.look()
            except Exception as error:  # a supervising loop: a database that is away for a while must not end it
                _log.warning("looking after schedules failed", error=str(error))
            await asyncio.sleep(TICK_S)

    async def look(self) -> None:
        """One round over all schedules, and over times of which nothing came."""
        now = self._clock.time()
        for row in await self._records.all():
            if not row.paused:
                await self._alone(row.name, self._look_at(row, now))
        for fire in await self._records.unsettled(limit=MOST):
            if now - fire.at > RETRY_S and await self._at_hand(fire.spec, now - fire.at):
                await self._alone(fire.schedule, self._settle(fire))

    async def _alone(self, name: str, work: Awaitable[None]) -> None:
        """What goes wrong with one schedule is no other one's matter."""
        try:
            await work
        except Unavailable:  # the database is away: for all of them
            raise
        except Exception as error:  # a supervising loop: the others have to be looked at
            _log.error("a schedule cannot be looked after", schedule=name, error=str(error) or type(error).__name__)

    async def _look_at(self, row: ScheduleRow, now: float) -> None:
        found = schedule_times.due(row.name, row.spec, row.created, since=row.since, now=now)
        if found is None:
            return
        if found.fire is None:
            await self._records.skip(row.name, found.done)
            metrics.SCHEDULE_TIMES.labels("missed").inc()
            _log.warning("schedule missed", schedule=row.name, due=found.done)
        elif not await self._at_hand(row.spec, now - found.fire):
            return
        elif await self._records.claim(row, found.fire, done=found.done):
            await self._settle(FireRow(row.name, found.fire, now, None, None, row.spec, True))

    async def _at_hand(self, spec: ScheduleSpec | None, late: float) -> bool:
        """Whether this server has the bundle, or nobody else seems to."""
        if spec is None or late > ELSEWHERE_S:
            return True
        bundle = await self._bundle_of(spec.template) if spec.template is not None else spec.job and spec.job.bundle
        return not bundle or await self._jobs.has_bundle(bundle)

    async def _settle(self, fire: FireRow) -> None:
        try:
            job = await self._make(fire)
        except CallerError as error:
            await self._records.settle(fire, error=error.message[:1000])
            metrics.SCHEDULE_TIMES.labels("refused").inc()
            _log.error("no job of a schedule", schedule=fire.schedule, due=fire.due, error=error.message)
        else:
            await self._records.settle(fire, job=job.summary.id)
            metrics.SCHEDULE_TIMES.labels("job").inc()
            _log.info("schedule fired", schedule=fire.schedule, due=fire.due, job_id=str(job.summary.id))
        self._hub.publish("schedules", fire.schedule)

    async def _make(self, fire: FireRow) -> Job:
        spec = fire.spec
        assert spec is not None
        by = f"schedule:{fire.schedule}"
        key, origin = f"{by} {fire.due!r}", Origin(name=by)
        if spec.template is not None:
            return await self._launch(spec.template, by, origin, key)
        assert isinstance(spec.job, JobSpec)
        return await self._jobs.submit(msgspec.structs.replace(spec.job, idempotency_key=key), by, origin)

"""Jobs and what lets them run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from llmagentos.api.jobs import Job, JobSpec
from llmagentos.api.schedules import Schedule
from llmagentos.core.config import find
from llmagentos.fleet.job_approvals import Rules
from llmagentos.fleet.job_driver import JobDriver
from llmagentos.fleet.jobs import Jobs
from llmagentos.fleet.plays import Plays
from llmagentos.fleet.rollout import Checks
from llmagentos.fleet.schedules import Schedules
from llmagentos.fleet.templates import Templates
from llmagentos.fleet.windows import Windows
from llmagentos.security.identity import Identity
from llmagentos.server.routes import job_files, job_queue, job_shares
from llmagentos.server.routes import jobs as job_routes
from llmagentos.server.routes import schedules as schedule_routes
from llmagentos.server.routes import templates as template_routes
from llmagentos.server.routes.job_pages import JobSources
from llmagentos.server.routes.schedule_pages import ScheduleSources
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.server.wiring.live_windows import follow
from llmagentos.server.wiring.nodes import Machines
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.certificates import CertificateRecords
from llmagentos.storage.job_files import JobFiles
from llmagentos.storage.jobs import JobRecords
from llmagentos.storage.schedules import ScheduleRecords
from llmagentos.storage.templates import TemplateRecords


@dataclass(frozen=True, slots=True)
class Work:
    """What others (the console) may use."""

    jobs: Jobs
    schedules: Schedules
    templates: Templates
    files: JobFiles


def wire(base: Foundation, parts: Parts, machines: Machines) -> Work:
    several = not base.database.is_sqlite
    windows = Windows(base.config.windows)
    records = JobRecords(base.database, base.clock)
    jobs = Jobs(
        records,
        Blobs(base.state.root / "blobs"),
        base.hub,
        base.clock,
        nodes=machines.nodes.known,
        away=machines.presence.away,
        closed=machines.nodes.not_open,
        missing=machines.nodes.missing,
        windows=windows.names,
        certificates=CertificateRecords(base.database, base.clock).good,
        approval=Rules(base.config.approvals.jobs_timeout_s, base.config.approvals.own_jobs),
        several=several,
    )
    checks = Checks(records, jobs.writer, base.hub, base.clock, submit=jobs.submit)
    driver = JobDriver(records, jobs.writer, checks, windows, base.hub, base.clock)

    plays = Plays(records.shares, base.hub, base.clock, several=several)
    fetched = Blobs(base.state.root / "fetched")
    files = JobFiles(base.database, base.clock, fetched, days=base.config.retention.job_files_days)

    templates = Templates(TemplateRecords(base.database, base.clock), jobs, base.hub)
    schedules = Schedules(
        ScheduleRecords(base.database, base.clock),
        jobs,
        base.hub,
        base.clock,
        launch=templates.launch_scheduled,
        check=templates.check_use,
        bundle_of=templates.bundle_of,
    )

    async def prune() -> None:
        needed = await schedules.bundles() | await templates.bundles()
        await jobs.prune(base.config.retention.jobs_days, bundles=needed)
        await schedules.prune(base.config.retention.jobs_days)
        await plays.prune()
        await files.prune()

    async def used(job: int) -> bool:
        span = (await records.inventory(job)).span
        return span is not None and span.files

    limits = base.config.server.limits
    parts.endpoints += job_routes.endpoints(jobs, base.hub, bundle_bytes=limits.bundle_bytes, several=several)
    parts.endpoints += job_queue.endpoints(jobs.queues, jobs.bundle_content)
    parts.endpoints += job_shares.endpoints(plays)
    parts.endpoints += job_files.endpoints(files, jobs.queues.require, jobs.show, used)
    parts.endpoints += schedule_routes.endpoints(schedules)
    parts.endpoints += template_routes.endpoints(templates)
    parts.background += [driver.run, schedules.run]
    if (file := find()) is not None:
        parts.background.append(partial(follow, file, windows.become))
    parts.start.append(jobs.drop_lost)
    parts.prune += [jobs.drop_lost, prune]
    return Work(jobs, schedules, templates, files)


def job_sources(work: Work) -> JobSources:
    """What the console's pages of jobs and templates do."""
    jobs, templates = work.jobs, work.templates

    async def decide(job: int, who: Identity, approved: bool, reason: str | None) -> Job:
        return await jobs.decide(job, str(who), approved=approved, reason=reason)

    return JobSources(
        listing=jobs.listing,
        job=jobs.show,
        events=jobs.last_events,
        changes=jobs.last_changes,
        files=work.files.listing,
        decide=decide,
        cancel=lambda job, who: jobs.cancel(job, str(who)),
        templates=templates.listing,
        template=templates.show,
        launch=lambda name, request, who: templates.launch(name, request, str(who)),
    )


def schedule_sources(work: Work) -> ScheduleSources:
    """What the console's pages of schedules do."""
    jobs, schedules, templates = work.jobs, work.schedules, work.templates

    async def pause(name: str, who: Identity, paused: bool) -> Schedule:
        return await schedules.pause(name, str(who), paused=paused)

    async def spec_of(job: int) -> JobSpec:
        return (await jobs.show(job)).spec

    return ScheduleSources(
        listing=schedules.listing,
        one=schedules.show,
        add=lambda name, spec, who: schedules.add(name, spec, str(who)),
        change=lambda name, spec, who: schedules.change(name, spec, str(who)),
        delete=schedules.delete,
        pause=pause,
        run_now=lambda name, who: schedules.run_now(name, str(who)),
        templates=templates.listing,
        template=templates.show,
        spec_of=spec_of,
    )

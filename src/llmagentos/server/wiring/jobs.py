"""Jobs and what lets them run."""

from __future__ import annotations

from llmagentos.fleet.job_driver import JobDriver
from llmagentos.fleet.jobs import Jobs
from llmagentos.fleet.rollout import Checks
from llmagentos.fleet.windows import Windows
from llmagentos.server.routes import job_queue
from llmagentos.server.routes import jobs as job_routes
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.server.wiring.nodes import Machines
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.jobs import JobRecords


def wire(base: Foundation, parts: Parts, machines: Machines) -> Jobs:
    windows = Windows(base.config.windows)
    records = JobRecords(base.database, base.clock)
    jobs = Jobs(
        records,
        Blobs(base.state.root / "blobs"),
        base.hub,
        base.clock,
        nodes=machines.nodes.names,
        away=machines.presence.away,
        is_open=machines.nodes.is_open,
        windows=windows.names,
    )
    checks = Checks(records, jobs.writer, base.hub, base.clock, submit=jobs.submit)
    driver = JobDriver(records, jobs.writer, checks, windows, base.hub, base.clock)

    async def prune() -> None:
        await jobs.prune(base.config.retention.jobs_days)

    limits = base.config.server.limits
    parts.endpoints += job_routes.endpoints(jobs, base.hub, bundle_bytes=limits.bundle_bytes)
    parts.endpoints += job_queue.endpoints(jobs.queues, jobs.bundle_content)
    parts.start.append(jobs.start)
    parts.background.append(driver.run)
    parts.prune.append(prune)
    return jobs

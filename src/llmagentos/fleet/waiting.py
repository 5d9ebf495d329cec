"""Waiting for a job to end, and what came of it in a few words."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from llmagentos.api.job_events import Stats, TaskResult
from llmagentos.api.jobs import Job
from llmagentos.core.events import Hub
from llmagentos.fleet.jobs import Jobs
from llmagentos.storage.job_tables import ENDED

PACE_S = 0.2
LOOK_S = 5.0
MOST_FAILED = 20
_LAST_EVENTS = 2_000


class FailedTask(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task that failed on a node."""

    node: str
    task: str
    message: str
    item: Any = None


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a job ended."""

    job: int
    state: str
    recap: dict[str, Stats | str]
    """By node: what its tasks came to, or why there is nothing of them."""
    failed: list[FailedTask] = []
    message: str | None = None


async def ended(jobs: Jobs, hub: Hub, job: int) -> Outcome:
    """What became of the job, once it has ended. Raises `NotFound`."""
    with hub.subscribe(f"job:{job}") as subscription:
        while (found := await jobs.show(job)).summary.state not in ENDED:
            try:
                await subscription.next(LOOK_S)
            except (TimeoutError, StopAsyncIteration):
                await asyncio.sleep(0)
            await asyncio.sleep(PACE_S)
    return await outcome(jobs, found)


async def outcome(jobs: Jobs, job: Job) -> Outcome:
    """What is known of the job now."""
    recap: dict[str, Stats | str] = {host.node: host.recap or host.message or host.state for host in job.hosts}
    failed = []
    if job.summary.state != "succeeded":
        records = await jobs.last_events(job.summary.id, limit=_LAST_EVENTS)
        results = [(record.node, record.event) for record in records if isinstance(record.event, TaskResult)]
        failed = [_task(node, event) for node, event in results if event.status in ("failed", "unreachable")]
    return Outcome(job.summary.id, job.summary.state, recap, failed[-MOST_FAILED:], job.message)


def _task(node: str, event: TaskResult) -> FailedTask:
    result = event.result
    told = result.get("msg") or result.get("stderr") or result.get("exception") or ""
    return FailedTask(node, event.task, str(told)[:1000], event.item)

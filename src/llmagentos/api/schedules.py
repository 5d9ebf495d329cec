"""Schedules on the wire: when, what, and what came of it. Times are seconds since the epoch, UTC."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient
from llmagentos.api.job_control import Text
from llmagentos.api.jobs import Job, JobSpec

ScheduleName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class TemplateUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A job template to launch, with its parameters."""

    name: ScheduleName
    parameters: dict[str, Any] = {}


class ScheduleSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When (`cron` or `every_s`) and what (`job` or `template`)."""

    cron: Text | None = None
    """Minute hour day-of-month month day-of-week, in `zone`."""
    every_s: Annotated[float, Meta(ge=10, le=366 * 86_400)] | None = None
    """Seconds from one time to the next, counted from when the schedule was made."""
    zone: Text = "UTC"
    jitter_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """Each time is late by up to so much, the same on every server: so that not all begin at once."""
    catch_up: Literal["none", "last"] = "none"
    """What becomes of times at which no server ran: nothing, or the last one is made up for."""
    job: JobSpec | None = None
    template: TemplateUse | None = None


class NewSchedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A schedule to make."""

    name: ScheduleName
    spec: ScheduleSpec


class Fire(msgspec.Struct, frozen=True, omit_defaults=True):
    """A time that a schedule was due, and what came of it: a job, or why none was made."""

    due: float
    at: float
    job: int | None = None
    error: str | None = None


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A schedule; `next` are its next times while it is not paused, `fires` its last ones, the newest first."""

    name: str
    spec: ScheduleSpec
    paused: bool
    created: float
    created_by: str
    changed_by: str
    next: list[float] = []
    fires: list[Fire] = []


_SCHEDULES = "/api/v1/schedules"


async def add(client: ApiClient, name: str, spec: ScheduleSpec) -> Schedule:
    """Make a schedule. Raises `Conflict` when the name is taken, and what a job of it would raise now."""
    return await client.post(_SCHEDULES, NewSchedule(name, spec), Schedule)


async def change(client: ApiClient, name: str, spec: ScheduleSpec) -> Schedule:
    """Change a schedule; without a job and a template in `spec` what it runs stays. Raises `NotFound`."""
    return await client.put(f"{_SCHEDULES}/{name}", spec, Schedule)


async def listing(client: ApiClient) -> list[Schedule]:
    """All schedules by name."""
    return await client.get(_SCHEDULES, list[Schedule])


async def show(client: ApiClient, name: str) -> Schedule:
    """One schedule."""
    return await client.get(f"{_SCHEDULES}/{name}", Schedule)


async def pause(client: ApiClient, name: str, *, paused: bool) -> Schedule:
    """Pause a schedule, or let it go on."""
    return await client.post(f"{_SCHEDULES}/{name}/{'pause' if paused else 'resume'}", {}, Schedule)


async def run_now(client: ApiClient, name: str) -> Job:
    """Make a job of it now, out of turn."""
    return await client.post(f"{_SCHEDULES}/{name}/run", {}, Job)


async def delete(client: ApiClient, name: str) -> None:
    """Delete a schedule; its jobs stay."""
    await client.delete(f"{_SCHEDULES}/{name}")

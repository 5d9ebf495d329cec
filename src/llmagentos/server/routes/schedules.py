"""Schedules: made, seen, paused, run out of turn, deleted."""

from __future__ import annotations

from llmagentos.api.jobs import Job
from llmagentos.api.schedules import NewSchedule, Schedule, ScheduleSpec
from llmagentos.fleet.schedules import Schedules
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint

_ALL = "/api/v1/schedules"
_ONE = f"{_ALL}/{{name}}"


def endpoints(schedules: Schedules) -> list[Endpoint]:
    """`schedules` decide and store."""

    async def add(call: Call) -> Schedule:
        new: NewSchedule = call.body
        return await schedules.add(new.name, new.spec, str(call.identity))

    async def change(call: Call) -> Schedule:
        return await schedules.change(call.path["name"], call.body, str(call.identity))

    async def listing(_: Call) -> list[Schedule]:
        return await schedules.listing()

    async def show(call: Call) -> Schedule:
        return await schedules.show(call.path["name"])

    async def pause(call: Call) -> Schedule:
        return await schedules.pause(call.path["name"], str(call.identity), paused=True)

    async def resume(call: Call) -> Schedule:
        return await schedules.pause(call.path["name"], str(call.identity), paused=False)

    async def run(call: Call) -> Job:
        return await schedules.run_now(call.path["name"], str(call.identity))

    async def delete(call: Call) -> None:
        await schedules.delete(call.path["name"])

    read, write = Permission.JOBS_READ, Permission.JOBS_WRITE
    return [
        Endpoint(
            "POST",
            _ALL,
            write,
            add,
            body=NewSchedule,
            returns=Schedule,
            summary="Make a schedule of a job or a job template",
            audited=True,
        ),
        Endpoint("GET", _ALL, read, listing, returns=list[Schedule], summary="List schedules"),
        Endpoint("GET", _ONE, read, show, returns=Schedule, summary="One schedule, its next and its last times"),
        Endpoint(
            "PUT",
            _ONE,
            write,
            change,
            body=ScheduleSpec,
            returns=Schedule,
            summary="Change a schedule's times or what it runs; without a job and a template that stays",
            audited=True,
        ),
        Endpoint("POST", f"{_ONE}/pause", write, pause, returns=Schedule, summary="Pause a schedule", audited=True),
        Endpoint(
            "POST", f"{_ONE}/resume", write, resume, returns=Schedule, summary="Let a schedule go on", audited=True
        ),
        Endpoint("POST", f"{_ONE}/run", write, run, returns=Job, summary="Make a job of it out of turn", audited=True),
        Endpoint("DELETE", _ONE, write, delete, summary="Delete a schedule; its jobs stay", audited=True),
    ]

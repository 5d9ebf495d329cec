"""The console's pages of schedules: made, changed, paused, run out of turn, deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import msgspec
from starlette.responses import Response

from llmagentos.api.jobs import Job, JobSpec
from llmagentos.api.schedules import Schedule, ScheduleName, ScheduleSpec, TemplateUse
from llmagentos.api.templates import Template
from llmagentos.core.errors import CallerError, InvalidInput
from llmagentos.fleet.survey import from_text
from llmagentos.security.identity import Identity, Permission
from llmagentos.server.console.forms import form_of, see_other
from llmagentos.server.console.render import Pages, language_choice, translation
from llmagentos.server.console.views import schedules
from llmagentos.server.console.views.schedules import Given
from llmagentos.server.endpoint import Call, Endpoint, Handler
from llmagentos.server.routes.job_pages import MAX_FORM

MAX_ROWS = 200

Save = Callable[[str, ScheduleSpec, Identity], Awaitable[Schedule]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSources:
    """Where these pages get what they show, and what they do."""

    listing: Callable[[], Awaitable[list[Schedule]]]
    one: Callable[[str], Awaitable[Schedule]]
    add: Save
    change: Save
    delete: Callable[[str], Awaitable[None]]
    pause: Callable[[str, Identity, bool], Awaitable[object]]
    run_now: Callable[[str, Identity], Awaitable[Job]]
    templates: Callable[[], Awaitable[list[Template]]]
    template: Callable[[str], Awaitable[Template]]
    spec_of: Callable[[int], Awaitable[JobSpec]]
    """What a job was asked to do, for a schedule that repeats it."""


def endpoints(sources: ScheduleSources, pages: Pages) -> list[Endpoint]:
    """`/schedules`, `/schedules/{name}` and `/new-schedule`, with what can be done from them."""
    return [_listing(sources, pages), *_new(sources, pages), *_one(sources, pages), *_acts(sources)]


def _listing(sources: ScheduleSources, pages: Pages) -> Endpoint:
    async def show(call: Call) -> Response:
        found = await sources.listing()
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "schedules.html",
            section="jobs",
            topics="topic=jobs",
            every=10,
            schedules=schedules.rows(found[:MAX_ROWS], translation(call.request)),
            more=len(found) > MAX_ROWS,
        )

    return Endpoint("GET", "/schedules", Permission.JOBS_READ, show)


def _new(sources: ScheduleSources, pages: Pages) -> list[Endpoint]:
    """A schedule of a template, or of what a job did."""

    async def begun(call: Call) -> Given:
        template, job = call.query.get("template"), call.query.get("job", "")
        if template:
            return Given(template=await sources.template(template))
        if job.isascii() and job.isdigit() and len(job) < 16:
            spec = await sources.spec_of(int(job))
            return Given(job=int(job), spec=msgspec.structs.replace(spec, idempotency_key=None))
        return Given()

    async def show(call: Call, given: Given | None = None) -> Response:
        given = given if given is not None else await begun(call)
        known = [] if given.runs else [each.name for each in await sources.templates()]
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "new_schedule.html",
            section="jobs",
            error=given.error,
            templates=known,
            form=schedules.form(given, translation(call.request)),
        )

    async def add(call: Call) -> Response:
        given = replace(await begun(call), fields=form_of(call.body))
        if not given.runs:
            raise InvalidInput("a schedule has either a job or a template")
        try:
            name = _name(given.text("name"))
            await sources.add(name, _spec(given), call.identity)
        except CallerError as error:
            return await show(call, replace(given, error=error))
        return see_other(f"/schedules/{name}")

    return [
        Endpoint("GET", "/new-schedule", Permission.JOBS_WRITE, show),
        Endpoint("POST", "/new-schedule", Permission.JOBS_WRITE, add, body=bytes, max_body=MAX_FORM, audited=True),
    ]


def _one(sources: ScheduleSources, pages: Pages) -> list[Endpoint]:
    async def begun(schedule: Schedule) -> Given:
        use = schedule.spec.template
        try:
            template = await sources.template(use.name) if use is not None else None
        except CallerError:  # it was deleted: the page says what is left
            template = None
        return Given(template=template, spec=schedule.spec.job, schedule=schedule.spec)

    async def show(call: Call, given: Given | None = None) -> Response:
        schedule = await sources.one(call.path["name"])
        given = given if given is not None else await begun(schedule)
        t = translation(call.request)
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "schedule.html",
            section="jobs",
            topics="topic=jobs",
            every=10,
            error=given.error,
            schedule=schedules.page(schedule, t),
            form=schedules.form(given, t),
        )

    async def change(call: Call) -> Response:
        schedule = await sources.one(call.path["name"])
        given = replace(await begun(schedule), fields=form_of(call.body))
        try:
            await sources.change(schedule.name, _spec(given), call.identity)
        except CallerError as error:
            return await show(call, replace(given, error=error))
        return see_other(f"/schedules/{schedule.name}")

    one = "/schedules/{name}"
    return [
        Endpoint("GET", one, Permission.JOBS_READ, show),
        Endpoint("POST", one, Permission.JOBS_WRITE, change, body=bytes, max_body=MAX_FORM, audited=True),
    ]


def _acts(sources: ScheduleSources) -> list[Endpoint]:
    def pausing(*, paused: bool) -> Handler:
        async def pause(call: Call) -> Response:
            await sources.pause(call.path["name"], call.identity, paused)
            return see_other("/schedules")

        return pause

    async def run(call: Call) -> Response:
        job = await sources.run_now(call.path["name"], call.identity)
        return see_other(f"/jobs/{job.summary.id}")

    async def delete(call: Call) -> Response:
        await sources.delete(call.path["name"])
        return see_other("/schedules")

    acts = {"pause": pausing(paused=True), "resume": pausing(paused=False), "run": run, "delete": delete}
    return [
        Endpoint("POST", f"/schedules/{{name}}/{name}", Permission.JOBS_WRITE, act, audited=True)
        for name, act in acts.items()
    ]


def _name(text: str) -> str:
    try:
        return msgspec.convert(text, ScheduleName)
    except msgspec.ValidationError:
        raise InvalidInput(
            f"{text[:80]!r} cannot be a schedule's name", hint="letters, digits, . _ -", parameter="name!"
        ) from None


def _spec(given: Given) -> ScheduleSpec:
    """What a form asks for. Raises `InvalidInput` that names the field, with `!`, or the survey's parameter."""
    use, template = None, given.template
    if template is not None:
        answers = {
            each.name: value
            for each in template.spec.parameters
            if (value := from_text(each, given.fields.get(each.name, []))) not in (None, [])
        }
        use = TemplateUse(template.name, answers)
    return schedules.times(given, ScheduleSpec(job=given.spec, template=use))

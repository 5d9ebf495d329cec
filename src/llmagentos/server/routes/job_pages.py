"""The console's pages of jobs and job templates, and what can be done from them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from starlette.responses import Response

from llmagentos.api.job_control import JobChange
from llmagentos.api.job_files import JobFile
from llmagentos.api.jobs import Job, JobRecord, JobSummary
from llmagentos.api.templates import Launch, Template
from llmagentos.core.errors import CallerError, Conflict, Forbidden, NotFound
from llmagentos.fleet.survey import from_text
from llmagentos.security.identity import Identity, Permission
from llmagentos.server.console.forms import form_of, see_other
from llmagentos.server.console.render import Pages, language_choice, translation
from llmagentos.server.console.views import jobs, templates
from llmagentos.server.endpoint import Call, Endpoint, Handler
from llmagentos.server.routes.job_files import may_download
from llmagentos.server.routes.jobs import job_number

MAX_ROWS = 50
MAX_FORM = 512 * 1024
MAX_REASON = 2000


class Listing(Protocol):
    """Jobs, newest first; those before the number `before`."""

    async def __call__(self, *, limit: int, before: int | None = None) -> list[JobSummary]: ...


class JobEvents(Protocol):
    """The newest events of a job (and one of its nodes), oldest first."""

    async def __call__(self, job: int, *, limit: int, node: str | None = None) -> list[JobRecord]: ...


class Changes(Protocol):
    """The newest changes of a job, newest first: of one node, of all with `hosts`, else of the job as a whole."""

    async def __call__(self, job: int, *, limit: int, node: str | None, hosts: bool) -> list[JobChange]: ...


class Files(Protocol):
    """The first files that a job (and one of its nodes) fetched."""

    async def __call__(self, job: int, *, node: str | None = None, limit: int) -> list[JobFile]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSources:
    """Where these pages get what they show, and what they do."""

    listing: Listing
    job: Callable[[int], Awaitable[Job]]
    events: JobEvents
    changes: Changes
    files: Files
    decide: Callable[[int, Identity, bool, str | None], Awaitable[Job]]
    cancel: Callable[[int, Identity], Awaitable[Job]]
    templates: Callable[[], Awaitable[list[Template]]]
    template: Callable[[str], Awaitable[Template]]
    launch: Callable[[str, Launch, Identity], Awaitable[Job]]


def endpoints(sources: JobSources, pages: Pages) -> list[Endpoint]:
    """All of them."""
    return [*_jobs(sources, pages), *_acts(sources, pages), *_templates(sources, pages)]


def _jobs(sources: JobSources, pages: Pages) -> list[Endpoint]:
    async def listing(call: Call) -> Response:
        before = _number(call.query["before"]) if "before" in call.query else None
        found = await sources.listing(limit=MAX_ROWS + 1, before=before)
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "jobs.html",
            section="jobs",
            topics="topic=jobs" if before is None else "",
            jobs=jobs.rows(found[:MAX_ROWS], translation(call.request)),
            older=found[MAX_ROWS - 1].id if len(found) > MAX_ROWS else None,
            newest=before is None,
        )

    return [
        Endpoint("GET", "/jobs", Permission.JOBS_READ, listing),
        Endpoint("GET", "/jobs/{id}", Permission.JOBS_READ, _showing(sources, pages)),
    ]


def _showing(sources: JobSources, pages: Pages) -> Callable[..., Awaitable[Response]]:
    """The page of a job, also with what was wrong about an act."""

    async def show(call: Call, error: CallerError | None = None) -> Response:
        number, node = _number(call.path["id"]), call.query.get("node") or None
        job = await sources.job(number)
        few = len(job.hosts) <= jobs.FEW
        events, changes, files = await asyncio.gather(
            sources.events(number, limit=jobs.MAX_EVENTS, node=node),
            sources.changes(number, limit=jobs.MAX_CHANGES, node=node, hosts=few),
            sources.files(number, node=node, limit=jobs.MAX_FILES + 1),
        )
        chosen = jobs.Chosen(call.query.get("state", ""), node or "", call.query.get("page"))
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "job.html",
            section="jobs",
            topics="" if job.summary.ended is not None else f"topic=job:{number}&topic=nodes",
            error=error,
            files=files[: jobs.MAX_FILES],
            more_files=len(files) > jobs.MAX_FILES,
            may_download=may_download(call.identity, job.summary),
            **jobs.page(job, events, translation(call.request), changes=changes, chosen=chosen),
        )

    return show


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise NotFound(f"there is no job {text[:80]!r}", hint="`llmctl jobs` lists them")
    return int(text)


def _acts(sources: JobSources, pages: Pages) -> list[Endpoint]:
    show = _showing(sources, pages)

    def deciding(*, approved: bool) -> Handler:
        async def decide(call: Call) -> Response:
            number = job_number(call)
            reason = form_of(call.body).get("reason", [""])[0].strip()[:MAX_REASON] or None
            try:
                await sources.decide(number, call.identity, approved, reason)
            except Conflict:  # somebody else was first: the job's page says who
                return see_other(f"/jobs/{number}")
            except Forbidden as error:  # not by this person
                return await show(call, error)
            return see_other(f"/jobs/{number}")

        return decide

    async def cancel(call: Call) -> Response:
        number = job_number(call)
        with suppress(Conflict):  # it has ended
            await sources.cancel(number, call.identity)
        return see_other(f"/jobs/{number}")

    decisions = [
        Endpoint(
            "POST",
            f"/jobs/{{id}}/{word}",
            Permission.JOBS_APPROVE,
            deciding(approved=word == "approve"),
            body=bytes,
            max_body=MAX_FORM,
            audited=True,
        )
        for word in ("approve", "deny")
    ]
    return [*decisions, Endpoint("POST", "/jobs/{id}/cancel", Permission.JOBS_WRITE, cancel, audited=True)]


def _templates(sources: JobSources, pages: Pages) -> list[Endpoint]:
    async def listing(call: Call) -> Response:
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "templates.html",
            section="jobs",
            topics="",
            templates=templates.rows(await sources.templates()),
        )

    async def show(call: Call, given: dict[str, list[str]] | None = None, error: CallerError | None = None) -> Response:
        template = await sources.template(call.path["name"])
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "template.html",
            section="jobs",
            topics="",
            error=error,
            wrong=error.details.get("parameter") if error is not None else None,
            shown=templates.page(template, given, translation(call.request)),
        )

    async def launch(call: Call) -> Response:
        template, form = await sources.template(call.path["name"]), form_of(call.body)
        try:
            answers = {
                each.name: value
                for each in template.spec.parameters
                if (value := from_text(each, form.get(each.name, []))) is not None
            }
            job = await sources.launch(template.name, Launch(answers, check="check!" in form), call.identity)
        except CallerError as error:
            secret = {each.name for each in template.spec.parameters if each.type == "secret"}
            return await show(call, {name: texts for name, texts in form.items() if name not in secret}, error)
        return see_other(f"/jobs/{job.summary.id}")

    one = "/templates/{name}"
    return [
        Endpoint("GET", "/templates", Permission.JOBS_READ, listing),
        Endpoint("GET", one, Permission.JOBS_READ, show),
        Endpoint("POST", one, Permission.TEMPLATES_LAUNCH, launch, body=bytes, max_body=MAX_FORM, audited=True),
    ]

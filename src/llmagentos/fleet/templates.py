"""Job templates: a playbook that others launch by answering a survey."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from llmagentos.api.jobs import Job
from llmagentos.api.schedules import TemplateUse
from llmagentos.api.templates import Applied, Launch, Template, TemplateSpec
from llmagentos.core import log
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput, NotFound, nearest
from llmagentos.core.events import Hub
from llmagentos.fleet import survey
from llmagentos.fleet.job_approvals import named
from llmagentos.fleet.jobs import Jobs, Origin
from llmagentos.storage.job_changes import masked
from llmagentos.storage.templates import TemplateRecords

MOST = 1000
AT_ONCE = 2
"""Surveys whose answers are looked at together."""

_log = log.get(__name__)


class Templates:
    """All templates."""

    def __init__(self, records: TemplateRecords, jobs: Jobs, hub: Hub) -> None:
        self._records = records
        self._jobs = jobs
        self._hub = hub
        self._matching = asyncio.Semaphore(AT_ONCE)

    async def apply(self, name: str, spec: TemplateSpec, by: str) -> Applied:
        """Make a template or give it a new version. Raises what a job of it would raise now, and `BadParameter`."""
        async with self._matching:
            await asyncio.to_thread(survey.check, spec.parameters)
        if spec.job.idempotency_key is not None or spec.job.secrets:
            raise InvalidInput("the job of a template has neither secrets nor an idempotency key")
        await self._jobs.check(spec.job)
        if len(await self._records.all()) >= MOST and await self._records.find(name) is None:
            raise Conflict(f"there are {MOST} templates: no more")
        template, change = await self._records.put(name, spec, by)
        _log.info("template applied", template=name, change=change, by=by)
        self._hub.publish("templates", name)
        return Applied(_shown(template), change)

    async def listing(self) -> list[Template]:
        """All templates by name."""
        return [_shown(template) for template in await self._records.all()]

    async def show(self, name: str) -> Template:
        """One template. Raises `NotFound`."""
        return _shown(await self._require(name))

    async def delete(self, name: str) -> None:
        """Delete a template; its jobs stay. Raises `NotFound`."""
        if not await self._records.remove(name):
            raise await self._unknown(name)
        self._hub.publish("templates", name)

    async def launch(self, name: str, request: Launch, by: str, origin: Origin | None = None) -> Job:
        """A job of it. Raises `BadParameter` that names the parameter, `Forbidden` when `by` may not launch it."""
        template = await self._require(name)
        spec = template.spec
        if spec.allow and not named(by, spec.allow):
            raise Forbidden(f"{by} may not launch {name!r}", hint=f"these may: {', '.join(spec.allow)}", template=name)
        variables = await self._answers(spec, request.parameters)
        secret = [each.name for each in spec.parameters if each.type == "secret" and each.name in variables]
        job = msgspec.structs.replace(
            spec.job,
            extra_vars=spec.job.extra_vars | variables,
            secrets=secret,
            literal=_literal(spec, request.parameters),
            check=spec.job.check or request.check,
            idempotency_key=request.idempotency_key,
        )
        return await self._jobs.submit(job, by, origin or Origin(name=f"template:{name}"))

    async def launch_scheduled(self, use: TemplateUse, by: str, origin: Origin, key: str) -> Job:
        """A job of it by the clock: whoever made the schedule was allowed to."""
        template = await self._require(use.name)
        variables = await self._answers(template.spec, use.parameters)
        spec = template.spec.job
        job = msgspec.structs.replace(
            spec,
            extra_vars=spec.extra_vars | variables,
            literal=_literal(template.spec, use.parameters),
            idempotency_key=key,
        )
        return await self._jobs.submit(job, by, origin)

    async def check_use(self, use: TemplateUse, by: str) -> None:
        """Whether a schedule of `by` may launch it with these parameters. Raises as `launch` does."""
        template = await self._require(use.name)
        if template.spec.allow and not named(by, template.spec.allow):
            raise Forbidden(f"{by} may not launch {use.name!r}", hint=f"these may: {', '.join(template.spec.allow)}")
        for parameter in template.spec.parameters:
            if parameter.type == "secret" and (parameter.required or parameter.name in use.parameters):
                raise InvalidInput(
                    f"the template {use.name!r} asks for the secret {parameter.name!r}, which no schedule keeps",
                    parameter=parameter.name,
                )
        await self._answers(template.spec, use.parameters)

    async def _answers(self, spec: TemplateSpec, given: Mapping[str, Any]) -> dict[str, Any]:
        async with self._matching:  # a regex may take its time, in a process of its own
            return await asyncio.to_thread(survey.answers, spec.parameters, given)

    async def bundle_of(self, use: TemplateUse) -> str | None:
        """The bundle that its jobs need; None when it is gone."""
        template = await self._records.find(use.name)
        return template.spec.job.bundle if template is not None else None

    async def bundles(self) -> set[str]:
        """Every bundle that a template needs."""
        return await self._records.bundles()

    async def _require(self, name: str) -> Template:
        template = await self._records.find(name)
        if template is None:
            raise await self._unknown(name)
        return template

    async def _unknown(self, name: str) -> NotFound:
        close = nearest(name, [template.name for template in await self._records.all()])
        hint = f"did you mean {close!r}?" if close else "`llmctl templates` lists them"
        return NotFound(f"there is no job template {name!r}", hint=hint)


def _literal(spec: TemplateSpec, given: Mapping[str, Any]) -> list[str]:
    """What was answered, in addition to what the template's maker says: whoever launches it writes no templates.

    A default is the maker's own, and may be one.
    """
    answered = (each.name for each in spec.parameters if given.get(each.name) is not None)
    return list(dict.fromkeys([*spec.job.literal, *answered]))


def _shown(template: Template) -> Template:
    return msgspec.structs.replace(template, spec=msgspec.structs.replace(template.spec, job=masked(template.spec.job)))

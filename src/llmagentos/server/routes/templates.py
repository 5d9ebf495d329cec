"""Job templates: made, seen, launched, deleted."""

from __future__ import annotations

import msgspec

from llmagentos.api.jobs import Job
from llmagentos.api.schedules import ScheduleName
from llmagentos.api.templates import Applied, Launch, Template, TemplateSpec
from llmagentos.core.errors import InvalidInput
from llmagentos.fleet.templates import Templates
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.jobs import keyed

_ALL = "/api/v1/templates"
_ONE = f"{_ALL}/{{name}}"


def endpoints(templates: Templates) -> list[Endpoint]:
    """`templates` decide and store."""

    async def apply(call: Call) -> Applied:
        try:
            name = msgspec.convert(call.path["name"], ScheduleName)
        except msgspec.ValidationError:
            raise InvalidInput(f"{call.path['name'][:80]!r} cannot be a template's name") from None
        return await templates.apply(name, call.body, str(call.identity))

    async def listing(_: Call) -> list[Template]:
        return await templates.listing()

    async def show(call: Call) -> Template:
        return await templates.show(call.path["name"])

    async def launch(call: Call) -> Job:
        return await templates.launch(call.path["name"], keyed(call, call.body), str(call.identity))

    async def delete(call: Call) -> None:
        await templates.delete(call.path["name"])

    read, write = Permission.JOBS_READ, Permission.JOBS_WRITE
    return [
        Endpoint("GET", _ALL, read, listing, returns=list[Template], summary="List job templates"),
        Endpoint("GET", _ONE, read, show, returns=Template, summary="One job template with its survey"),
        Endpoint(
            "PUT",
            _ONE,
            write,
            apply,
            body=TemplateSpec,
            returns=Applied,
            summary="Make a job template or give it a new version",
            audited=True,
        ),
        Endpoint(
            "POST",
            f"{_ONE}/launch",
            Permission.TEMPLATES_LAUNCH,
            launch,
            body=Launch,
            returns=Job,
            summary="Make a job of a template by answering its survey",
            audited=True,
        ),
        Endpoint("DELETE", _ONE, write, delete, summary="Delete a job template; its jobs stay", audited=True),
    ]

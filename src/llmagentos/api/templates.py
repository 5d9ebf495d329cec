"""Job templates on the wire: a job that is asked for by typed parameters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient
from llmagentos.api.job_control import Key, Text
from llmagentos.api.jobs import Job, JobSpec
from llmagentos.api.schedules import ScheduleName
from llmagentos.core.errors import InvalidInput

Kind = Literal["string", "int", "float", "bool", "choice", "multichoice", "secret"]
Variable = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Change = Literal["created", "changed", "unchanged"]


class BadParameter(InvalidInput):
    """An answer, or the question itself, is not right; `details["parameter"]` is its name."""

    code = "bad_parameter"


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question of the survey; the answer is the variable `name` of the playbook."""

    name: Variable
    type: Kind = "string"
    label: Text = ""
    help: Text = ""
    required: bool = True
    default: Any = None
    min: float | None = None
    """Least number, or least length of a text, or least number of choices."""
    max: float | None = None
    regex: Text | None = None
    """What a text has to match, all of it."""
    choices: Annotated[list[Text], Meta(max_length=500)] = []


class TemplateSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is run and what is asked for; `allow` names who may launch it, as `kind:name` or `kind:*`."""

    job: JobSpec
    description: Text = ""
    parameters: Annotated[list[Parameter], Meta(max_length=100)] = []
    allow: Annotated[list[Text], Meta(max_length=64)] = []
    """Without any: everybody who may launch templates."""


class Template(msgspec.Struct, frozen=True, omit_defaults=True):
    """A template."""

    name: str
    version: int
    spec: TemplateSpec
    updated: float
    updated_by: str


class Applied(msgspec.Struct, frozen=True):
    """What putting a template changed."""

    template: Template
    change: Change


class Launch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The survey's answers. What has a default may be left out."""

    parameters: dict[str, Any] = {}
    idempotency_key: Key | None = None
    check: bool = False
    """Change nothing; say what would change."""


_TEMPLATES = "/api/v1/templates"


async def apply(client: ApiClient, name: ScheduleName, spec: TemplateSpec) -> Applied:
    """Make a template or give it a new version."""
    return await client.put(f"{_TEMPLATES}/{name}", spec, Applied)


async def listing(client: ApiClient) -> list[Template]:
    """All templates by name."""
    return await client.get(_TEMPLATES, list[Template])


async def show(client: ApiClient, name: str) -> Template:
    """One template."""
    return await client.get(f"{_TEMPLATES}/{name}", Template)


async def launch(client: ApiClient, name: str, request: Launch) -> Job:
    """A job of it. Raises `InvalidInput` that names the parameter, `Forbidden`."""
    return await client.post(f"{_TEMPLATES}/{name}/launch", request, Job)


async def delete(client: ApiClient, name: str) -> None:
    """Delete a template; its jobs stay."""
    await client.delete(f"{_TEMPLATES}/{name}")

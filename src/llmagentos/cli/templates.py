"""`llmctl templates [show|launch|delete]`, and job templates from files for `llmctl apply`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from llmagentos.api import jobs as jobs_api
from llmagentos.api import templates as api
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import JobSpec
from llmagentos.api.templates import Applied, Launch, Parameter, Template, TemplateSpec
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.inventories import read_inventories
from llmagentos.cli.job_following import Text, watch
from llmagentos.cli.output import ago, emit, emit_json, fields, json_option, listing_group, note, short, table
from llmagentos.cli.pack import pack
from llmagentos.core.errors import InvalidInput, NotFound, nearest
from llmagentos.core.i18n import tr
from llmagentos.fleet.survey import from_text

KIND = "JobTemplate"
_OWN = frozenset({"kind", "name", "description", "parameters", "allow"})
_PACKED = frozenset({"playbook", "inventory"})


@listing_group(tr("List job templates; show and launch one."))
@json_option
def templates(as_json: bool) -> None:
    """One line a template."""
    found = execute(_listing())
    if as_json:
        emit_json(found)
        return
    rows = [
        [
            each.name,
            each.version,
            each.spec.job.playbook,
            _asked(each),
            ago(each.updated),
            short(each.spec.description, 50),
        ]
        for each in found
    ]
    names = [tr("Name"), tr("Version"), tr("Playbook"), tr("Parameters"), tr("Updated"), tr("Description")]
    table(names, rows, empty=tr("No job templates. `llmctl apply -f FILE` makes one (kind: JobTemplate)."))


async def _listing() -> list[Template]:
    async with connected() as client:
        return await api.listing(client)


def _row(each: Template) -> list[object]:
    about = short(each.spec.description, 50)
    return [each.name, each.version, each.spec.job.playbook, _asked(each), ago(each.updated), about]


def _asked(template: Template) -> str:
    return ", ".join(parameter.name for parameter in template.spec.parameters) or "-"


@templates.command(help=tr("Show a job template and what it asks for."))
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Everything that is known of one template."""
    found = execute(_show(name))
    if as_json:
        emit_json(found)
        return
    pairs: list[tuple[str, object]] = [
        (tr("Name"), found.name),
        (tr("Version"), found.version),
        (tr("Playbook"), found.spec.job.playbook),
        (tr("Updated"), tr("{time} by {who}", time=ago(found.updated), who=found.updated_by)),
        (tr("May launch"), ", ".join(found.spec.allow) or tr("everybody who may launch templates")),
    ]
    if found.spec.description:
        pairs.append((tr("Description"), found.spec.description))
    fields(pairs)
    emit()
    rows = [
        [each.name, each.type, _bounds(each), "-" if each.default is None else each.default, each.label or each.help]
        for each in found.spec.parameters
    ]
    table([tr("Parameter"), tr("Type"), tr("Allowed"), tr("Default"), tr("Note")], rows)


def _bounds(parameter: Parameter) -> str:
    found = [", ".join(parameter.choices)] if parameter.choices else []
    if parameter.min is not None or parameter.max is not None:
        low = "" if parameter.min is None else f"{parameter.min:g}"
        high = "" if parameter.max is None else f"{parameter.max:g}"
        found.append(f"{low}..{high}")
    if parameter.regex is not None:
        found.append(parameter.regex)
    return short("; ".join(found), 50) or "-"


async def _show(name: str) -> Template:
    async with connected() as client:
        return await api.show(client, name)


@templates.command(help=tr("Launch a job template: `llmctl templates launch NAME release=1.2`."))
@click.argument("name")
@click.argument("answers", nargs=-1, metavar="[PARAMETER=VALUE]...")
@click.option("-C", "--check", is_flag=True, help=tr("Change nothing; say what would change."))
@click.option("--idempotency-key", metavar="KEY", help=tr("Asked again with the same key it is the same job."))
@click.option("--detach", is_flag=True, help=tr("Queue it, print its number, do not wait."))
@click.pass_context
def launch(
    ctx: click.Context, name: str, answers: tuple[str, ...], check: bool, idempotency_key: str | None, detach: bool
) -> None:
    """Exit codes as of `llmctl run`. A secret that is left out is asked for on a terminal."""
    number, hosts = execute(_launch(name, answers, check, idempotency_key))
    if detach:
        emit(str(number))
        note(tr("queued. `llmctl job logs {job} -f` follows it", job=number))
        return
    ctx.exit(watch(number, Text(hosts=hosts, verbosity=0), offer_cancel=True))


async def _launch(name: str, answers: tuple[str, ...], check: bool, key: str | None) -> tuple[int, int]:
    async with connected() as client:
        given = await answered(client, name, answers, ask=True)
        job = await api.launch(client, name, Launch(given, key, check))
        return job.summary.id, len(job.hosts)


async def answered(client: ApiClient, name: str, given: Sequence[str], *, ask: bool = False) -> dict[str, Any]:
    """What `k=v` words say to the survey of a template, as its types. Raises `BadParameter`."""
    known = {parameter.name: parameter for parameter in (await api.show(client, name)).spec.parameters}
    texts: dict[str, list[str]] = {}
    for word in given:
        key, equals, text = word.partition("=")
        if not equals:
            raise InvalidInput(tr("{given}: expected PARAMETER=VALUE", given=repr(word[:80])))
        if key not in known:
            close = nearest(key, known)
            hint = (
                tr("did you mean {name}?", name=repr(close))
                if close
                else tr("asked for: {names}", names=", ".join(known))
            )
            raise InvalidInput(tr("there is no parameter {name}", name=repr(key[:80])), hint=hint)
        texts.setdefault(key, []).append(text)
    for key, parameter in known.items():
        if ask and parameter.type == "secret" and parameter.required and key not in texts:
            texts[key] = [click.prompt(parameter.label or key, hide_input=True, err=True)]
    return {key: from_text(known[key], words) for key, words in texts.items()}


@templates.command(help=tr("Delete a job template; its jobs stay."))
@click.argument("name")
def delete(name: str) -> None:
    """For good."""
    execute(_delete(name))
    note(tr("{kind} {name} deleted", kind=tr("job template"), name=name))


async def _delete(name: str) -> None:
    async with connected() as client:
        await api.delete(client, name)


# --- files ----------------------------------------------------------------------------------------


def is_template(file: Path) -> bool:
    """Whether the file describes a job template; what cannot be read is somebody else's to complain about."""
    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("kind") == KIND


def read_template(file: Path) -> tuple[str, TemplateSpec, bytes]:
    """Name, spec and bundle of the job template in `file`; its paths count from there. Raises `InvalidInput`."""
    document = yaml.safe_load(file.read_text("utf-8"))
    fields_ = {key: value for key, value in document.items() if key not in _OWN}
    try:
        name = msgspec.convert(document.get("name"), str)
        playbook = file.absolute().parent / msgspec.convert(fields_.get("playbook"), str)
        inventories = msgspec.convert(fields_.get("inventory", []), list[str])
        if not playbook.is_file():
            raise InvalidInput(f"{file}: {tr('there is no playbook {path}', path=repr(str(playbook)))}")
        sources, outside = read_inventories(
            tuple(str(file.absolute().parent / each) for each in inventories), playbook.parent
        )
        digest, content = pack(playbook.parent, more=outside)
        packed = {"bundle": digest, "playbook": playbook.name, "inventory": msgspec.to_builtins(sources)}
        job = {key: value for key, value in fields_.items() if key not in _PACKED} | packed
        own = {key: value for key, value in document.items() if key in _OWN - {"kind", "name"}}
        return name, msgspec.convert({"job": job, **own}, TemplateSpec), content
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{file}: {error}", hint=tr("docs/jobs.md shows a job template")) from None


async def put(client: ApiClient, name: str, spec: TemplateSpec, content: bytes) -> Applied:
    """Make the template or give it a new version, with its bundle."""
    job: JobSpec = spec.job
    try:
        await jobs_api.bundle(client, job.bundle)
    except NotFound:
        await jobs_api.upload_bundle(client, job.bundle, content)
    return await api.apply(client, name, spec)

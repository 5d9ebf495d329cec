"""`llmctl schedules [add|change|show|pause|resume|delete|run-now]`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from llmagentos.api import schedules as api
from llmagentos.api.client import ApiClient
from llmagentos.api.schedules import Schedule, ScheduleSpec, TemplateUse
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.job_options import scheduled_options, typed_options, was_typed
from llmagentos.cli.output import (
    duration,
    emit,
    emit_json,
    fields,
    json_option,
    listing_group,
    note,
    short,
    state,
    table,
    when,
)
from llmagentos.cli.run import uploaded
from llmagentos.cli.schedule_options import (
    changed_job,
    changed_use,
    new_job,
    require_one_kind,
    schedule_options,
    times,
    told,
    unset_option,
)
from llmagentos.cli.templates import answered
from llmagentos.core.errors import InvalidInput
from llmagentos.core.i18n import tr


@listing_group(tr("Playbooks and job templates by the clock: list and change them."))
@json_option
def schedules(as_json: bool) -> None:
    """One line a schedule."""
    found = execute(_listing())
    if as_json:
        emit_json(found)
        return
    table(
        [tr("Name"), tr("State"), tr("When"), tr("Runs"), tr("Next"), tr("Last"), tr("Made by")],
        [_row(each) for each in found],
        empty=tr("No schedules. `llmctl schedules add NAME PLAYBOOK --cron ...` makes one."),
    )


@schedules.command(help=tr("Make a schedule NAME of the file PLAYBOOK, or of a job template."))
@click.argument("name")
@schedule_options(new=True)
@scheduled_options
def add(
    name: str,
    playbook: Path | None,
    cron: str | None,
    every: float | None,
    zone: str,
    jitter: float | None,
    catch_up: Any,
    template: str | None,
    parameters: tuple[str, ...],
    **job: Any,
) -> None:
    """The playbook's directory goes along as it is now: `change` with the playbook takes it anew."""
    if (playbook is None) == (template is None):
        raise InvalidInput(tr("a schedule is of a PLAYBOOK or of --template NAME"))
    require_one_kind(runs_template=template is not None, parameters=parameters, job=job)
    spec = times(ScheduleSpec(), cron=cron, every=every, zone=zone, jitter=jitter, catch_up=catch_up)
    content = None
    if playbook is not None:
        made, content = new_job(playbook, **job)
        spec = msgspec.structs.replace(spec, job=made)
    if template is not None:
        spec = msgspec.structs.replace(spec, template=TemplateUse(template))
    _tell(execute(_put(api.add, name, spec, content, parameters)))


@schedules.command(
    help=tr("Change a schedule: when, what it runs, with which options. What is not given stays as it is.")
)
@click.argument("name")
@schedule_options(new=False)
@typed_options
@unset_option
def change(
    name: str,
    playbook: Path | None,
    template: str | None,
    parameters: tuple[str, ...],
    unset: tuple[str, ...],
    **given: Any,
) -> None:
    """With PLAYBOOK its directory is taken anew; -e and -p are added to the variables and answers that there are."""
    if not any(map(was_typed, (playbook, template, parameters, unset, *given.values()))):
        raise InvalidInput(tr("there is nothing to change"), hint="llmctl schedules change --help")
    if playbook is not None and template is not None:
        raise InvalidInput(tr("a schedule is of a PLAYBOOK or of --template NAME"))
    clock = {option: given.pop(option) for option in ("cron", "every", "zone", "jitter", "catch_up")}
    before = execute(_show(name)).spec
    spec = times(before, **clock, unset=unset)
    runs_template = template is not None or (before.template is not None and playbook is None)
    require_one_kind(runs_template=runs_template, parameters=parameters, job=given, unset=unset)
    content = None
    if runs_template:
        use = changed_use(before.template, template, unset)
        spec = msgspec.structs.replace(spec, job=None, template=use)
    else:
        job, content = changed_job(before.job, playbook, **given, unset=unset)
        spec = msgspec.structs.replace(spec, job=job, template=None)
    _tell(execute(_put(api.change, name, spec, content, parameters)))


def _tell(schedule: Schedule) -> None:
    at = when(schedule.next[0] if schedule.next else None)
    note(tr("schedule {name}: next at {time}", name=schedule.name, time=at))


async def _put(
    call: Callable[[ApiClient, str, ScheduleSpec], Awaitable[Schedule]],
    name: str,
    spec: ScheduleSpec,
    content: bytes | None,
    parameters: tuple[str, ...],
) -> Schedule:
    """Have the server know the bundle, read the answers as their survey says, and `call` the API with it all."""
    async with connected() as client:
        if spec.job is not None and content is not None:
            await uploaded(client, spec.job.bundle, content)
        if (use := spec.template) is not None and parameters:
            answers = use.parameters | await answered(client, use.name, parameters)
            spec = msgspec.structs.replace(spec, template=TemplateUse(use.name, answers))
        return await call(client, name, spec)


async def _listing() -> list[Schedule]:
    async with connected() as client:
        return await api.listing(client)


def _row(each: Schedule) -> list[object]:
    last = each.fires[0] if each.fires else None
    told = (
        "-" if last is None else tr("job {job}", job=last.job) if last.job is not None else short(last.error or "", 40)
    )
    return [
        each.name,
        state("paused" if each.paused else "active"),
        _rule(each),
        _runs(each),
        when(each.next[0] if each.next else None),
        told,
        each.created_by,
    ]


def _rule(each: Schedule) -> str:
    spec = each.spec
    if spec.cron is not None:
        return f"{spec.cron} {spec.zone}"
    return tr("every {time}", time=duration(spec.every_s))


def _runs(each: Schedule) -> str:
    spec = each.spec
    return tr("template {name}", name=spec.template.name) if spec.template else spec.job.playbook if spec.job else ""


@schedules.command(help=tr("Show a schedule, its next and its last times."))
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Everything that is known of one schedule."""
    found = execute(_show(name))
    if as_json:
        emit_json(found)
        return
    fields(
        [
            (tr("Name"), found.name),
            (tr("State"), state("paused" if found.paused else "active")),
            (tr("When"), _rule(found)),
            (tr("Runs"), _runs(found)),
            *((f"--{name}", value) for name, value in told(found.spec)),
            (tr("Next"), ", ".join(when(each) for each in found.next) or "-"),
            (tr("Made by"), found.created_by),
            (tr("Changed by"), found.changed_by),
        ]
    )
    emit()
    rows = [[when(each.due), each.job or "-", each.error or ""] for each in found.fires]
    table([tr("Due"), tr("Job"), tr("Note")], rows)


async def _show(name: str) -> Schedule:
    async with connected() as client:
        return await api.show(client, name)


@schedules.command(help=tr("Pause a schedule."))
@click.argument("name")
def pause(name: str) -> None:
    """What is due meanwhile is not made up for."""
    execute(_pause(name, paused=True))
    note(tr("schedule {name} is paused", name=name))


@schedules.command(help=tr("Let a schedule go on."))
@click.argument("name")
def resume(name: str) -> None:
    """From its next time on."""
    _tell(execute(_pause(name, paused=False)))


async def _pause(name: str, *, paused: bool) -> Schedule:
    async with connected() as client:
        return await api.pause(client, name, paused=paused)


@schedules.command(help=tr("Delete a schedule; its jobs stay."))
@click.argument("name")
def delete(name: str) -> None:
    """For good."""
    execute(_delete(name))
    note(tr("{kind} {name} deleted", kind=tr("schedule"), name=name))


async def _delete(name: str) -> None:
    async with connected() as client:
        await api.delete(client, name)


@schedules.command("run-now", help=tr("Make a job of a schedule now, out of turn."))
@click.argument("name")
def run_now(name: str) -> None:
    """Its number on stdout."""
    number = execute(_run_now(name))
    emit(str(number))
    note(tr("queued. `llmctl job logs {job} -f` follows it", job=number))


async def _run_now(name: str) -> int:
    async with connected() as client:
        return (await api.run_now(client, name)).summary.id

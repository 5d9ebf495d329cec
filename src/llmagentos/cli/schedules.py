"""`llmctl schedules [add|show|pause|resume|delete|run-now]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from llmagentos.api import jobs as jobs_api
from llmagentos.api import schedules as api
from llmagentos.api.jobs import JobSpec
from llmagentos.api.schedules import Schedule, ScheduleSpec, TemplateUse
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.inventories import read_inventories
from llmagentos.cli.job_options import scheduled_options
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
from llmagentos.cli.pack import pack
from llmagentos.cli.playbook_options import extra_vars, inventory_options, listed, variable_option
from llmagentos.cli.span import Span
from llmagentos.cli.templates import answered
from llmagentos.core.errors import InvalidInput, NotFound
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
@click.argument("playbook", type=click.Path(path_type=Path), required=False)
@click.option("--cron", help=tr("Minute hour day-of-month month day-of-week, e.g. '30 2 * * MON-FRI'."))
@click.option("--every", type=Span(), help=tr("Interval, e.g. 15m or 6h."))
@click.option("--zone", default="UTC", show_default=True, help=tr("Time zone of --cron, e.g. Europe/Berlin."))
@click.option("--jitter", type=Span(), help=tr("Each time is late by up to so much, e.g. 5m."))
@click.option(
    "--catch-up",
    type=click.Choice(["none", "last"]),
    default="none",
    show_default=True,
    help=tr("What becomes of times at which no server ran: nothing, or the last one is made up for."),
)
@click.option("--template", metavar="NAME", help=tr("Launch this job template instead of a playbook."))
@click.option("-p", "--parameter", "parameters", multiple=True, help=tr("An answer of the template's survey: k=v."))
@inventory_options
@click.option("-C", "--check", is_flag=True, help=tr("Change nothing; say what would change."))
@click.option("-D", "--diff", is_flag=True, help=tr("Show differences of changed files."))
@variable_option
@click.option("-t", "--tags", multiple=True, help=tr("Only tasks with these tags (commas or repeated)."))
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
    """The playbook's directory goes along as it is now: make the schedule anew when it changes."""
    if (playbook is None) == (template is None):
        raise InvalidInput(tr("a schedule is of a PLAYBOOK or of --template NAME"))
    spec = ScheduleSpec(cron, every, zone, jitter or 0.0, catch_up)
    if template is not None:
        made = execute(_add_template(name, spec, template, parameters))
    else:
        assert playbook is not None
        made = execute(_add_job(name, spec, *_job(playbook, **job)))
    note(tr("schedule {name}: next at {time}", name=name, time=when(made.next[0] if made.next else None)))


def _job(
    playbook: Path,
    *,
    inventories: tuple[str, ...],
    limit: str | None,
    extra: tuple[str, ...],
    tags: tuple[str, ...],
    **more: Any,
) -> tuple[JobSpec, bytes]:
    if not playbook.is_file():
        raise InvalidInput(
            tr("there is no playbook {path}", path=repr(str(playbook))), hint=tr("the path of a YAML file")
        )
    directory = playbook.absolute().parent
    sources, outside = read_inventories(inventories, directory)
    digest, content = pack(directory, more=outside)
    spec = JobSpec(
        digest,
        playbook.name,
        inventory=sources,
        limit=limit,
        extra_vars=extra_vars(extra),
        tags=listed(tags),
        **more,
    )
    return spec, content


async def _add_job(name: str, spec: ScheduleSpec, job: JobSpec, content: bytes) -> Schedule:
    async with connected() as client:
        try:
            await jobs_api.bundle(client, job.bundle)
        except NotFound:
            await jobs_api.upload_bundle(client, job.bundle, content)
        return await api.add(
            client, name, ScheduleSpec(spec.cron, spec.every_s, spec.zone, spec.jitter_s, spec.catch_up, job)
        )


async def _add_template(name: str, spec: ScheduleSpec, template: str, given: tuple[str, ...]) -> Schedule:
    async with connected() as client:
        use = TemplateUse(template, await answered(client, template, given))
        return await api.add(
            client, name, ScheduleSpec(spec.cron, spec.every_s, spec.zone, spec.jitter_s, spec.catch_up, None, use)
        )


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
    found = execute(_pause(name, paused=False))
    note(tr("schedule {name}: next at {time}", name=name, time=when(found.next[0] if found.next else None)))


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

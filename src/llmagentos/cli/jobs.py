"""`llmctl jobs`, `llmctl job show|logs|events|cancel|approve|deny`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from llmagentos.api import jobs as api
from llmagentos.api.client import ApiClient
from llmagentos.api.job_control import JobChange, history
from llmagentos.api.jobs import Job, JobHost, JobRecord, JobSummary, PlayStarted, TaskResult
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.job_decisions import approve, deny
from llmagentos.cli.job_files import files
from llmagentos.cli.job_following import Text, watch
from llmagentos.cli.job_output import Printer, recap, result_line
from llmagentos.cli.job_words import batch_row, change_row, waits_for
from llmagentos.cli.output import (
    ago,
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
from llmagentos.core.errors import Conflict
from llmagentos.core.i18n import tr

PAGE = 1000


@listing_group(tr("List jobs, newest first."))
@click.option("-n", "--number", type=click.IntRange(1, PAGE), default=20, help=tr("How many."))
@click.option("--node", help=tr("Only those on this node."))
@json_option
def jobs(number: int, node: str | None, as_json: bool) -> None:
    """One line a job; the commands on one job hang below this group as well."""
    found = execute(_listing(number, node))
    if as_json:
        emit_json(found)
        return
    table(
        [tr("Job"), tr("State"), tr("Playbook"), tr("Nodes"), tr("Started by"), tr("Created"), tr("Duration")],
        [_row(job) for job in found],
        empty=tr("No jobs yet. `llmctl run PLAYBOOK` starts one."),
    )


async def _listing(number: int, node: str | None) -> list[JobSummary]:
    async with connected() as client:
        return await api.listing(client, limit=number, node=node)


def _row(job: JobSummary) -> list[object]:
    nodes = ", ".join(job.nodes)
    shown = f"{state(job.state)}: {waits_for(job.waiting_for)}" if job.waiting_for else state(job.state)
    return [job.id, shown, _name(job), short(nodes, 40), job.created_by, ago(job.created), _took(job)]


def _name(job: JobSummary) -> str:
    return f"{job.name} ({', '.join(job.modes)})" if job.modes else job.name


def _took(job: JobSummary | JobHost) -> str:
    return duration(job.ended - job.started if job.ended is not None and job.started is not None else None)


@click.group(help=tr("Show one job, follow it, cancel it, approve it."))
def job() -> None:
    """Commands on one job hang below this group."""


@job.command(help=tr("Show a job: its nodes and the results of its tasks."))
@click.argument("number", type=click.IntRange(1))
@json_option
def show(number: int, as_json: bool) -> None:
    """Everything that is known of one job."""
    found, records = execute(_show(number))
    if as_json:
        emit_json({"job": found, "events": records})
        return
    summary = found.summary
    fields(
        [
            (tr("Job"), summary.id),
            (tr("Playbook"), _name(summary)),
            (tr("State"), state(summary.state)),
            (tr("Started by"), summary.created_by),
            (tr("Created"), when(summary.created)),
            (tr("Duration"), _took(summary)),
            (tr("Exit code"), "-" if summary.exit_code is None else summary.exit_code),
            *_more(found),
        ]
    )
    emit()
    _hosts(found)
    if found.batches:
        emit()
        table([tr("Batch"), tr("State"), tr("Nodes"), tr("Note")], map(batch_row, found.batches))
    if any(isinstance(record.event, TaskResult) for record in records):
        emit()
        _tasks(records)


def _more(found: Job) -> list[tuple[str, object]]:
    """What only some jobs have."""
    summary, spec, approval = found.summary, found.spec, found.approval
    pairs: list[tuple[str, object]] = []
    if summary.waiting_for is not None:
        pairs.append((tr("Waits for"), waits_for(summary.waiting_for)))
    if approval is not None:
        said = tr("{state} by {who}", state=approval.state, who=approval.by) if approval.by else state(approval.state)
        pairs.append((tr("Approval"), f"{said}: {approval.reason}" if approval.reason else said))
    shown: dict[str, object] = {tr("Made by"): summary.origin, tr("Lock"): spec.lock, tr("Window"): spec.window}
    shown |= {tr("Priority"): summary.priority or None, tr("Note"): found.message}
    return [*pairs, *((name, value) for name, value in shown.items() if value is not None)]


async def _show(number: int) -> tuple[Job, list[JobRecord]]:
    async with connected() as client:
        return await api.show(client, number), await _events(client, number)


async def _events(client: ApiClient, number: int) -> list[JobRecord]:
    found: list[JobRecord] = []
    while page := await api.events(client, number, after=found[-1].id if found else 0, limit=PAGE):
        found += page
    return found


def _hosts(found: Job) -> None:
    counted = ("ok", "changed", "failed", "unreachable", "skipped")
    rows = []
    for host in found.hosts:
        counts = [getattr(host.recap, name) if host.recap else "-" for name in counted]
        rows.append([host.node, state(host.state), *counts, _took(host), _why(found, host)])
    names = [tr("ok"), tr("changed"), tr("failed"), tr("unreachable"), tr("skipped")]
    table([tr("Node"), tr("State"), *names, tr("Duration"), tr("Note")], rows)


def _why(found: Job, host: JobHost) -> str:
    if host.message and host.not_before is None:
        return short(host.message, 80)
    if host.state == "held":
        if host.not_before is not None:
            return tr("attempt {number} at {time}", number=host.attempt, time=when(host.not_before))
        return tr("waits for batch {number}", number=host.batch) if host.batch is not None else ""
    if host.node in found.waiting:
        return tr("away: waits until it is back")
    return tr("jobs before it: {count}", count=host.ahead) if host.ahead else ""


def _tasks(records: Iterable[JobRecord]) -> None:
    rows = []
    play = ""
    for record in records:
        if isinstance(record.event, PlayStarted):
            play = record.event.name
        elif isinstance(record.event, TaskResult):
            result = record.event
            said = short(result_line(result).partition(" => ")[2], 60)
            rows.append([short(play, 20), short(result.task, 40), result.host, state(result.status), said])
    table([tr("Play"), tr("Task"), tr("Node"), tr("State"), tr("Note")], rows)


@job.command(help=tr("Print a job's output as ansible-playbook does."))
@click.argument("number", type=click.IntRange(1))
@click.option("-f", "--follow", is_flag=True, help=tr("Go on until the job ends; its exit code becomes this one's."))
@click.option("-v", "--verbose", "verbosity", count=True, help=tr("Show results."))
@click.pass_context
def logs(ctx: click.Context, number: int, follow: bool, verbosity: int) -> None:
    """Without `-f`, what there is until now."""
    if follow:
        found = execute(_job(number))
        ctx.exit(watch(number, Text(hosts=len(found.hosts), verbosity=verbosity), offer_cancel=False))
    found, records = execute(_show(number))
    printer = Printer(hosts=len(found.hosts), verbosity=verbosity)
    for record in records:
        printer.show(record)
    recap(found.hosts, printer.recaps)


async def _job(number: int) -> Job:
    async with connected() as client:
        return await api.show(client, number)


@job.command(help=tr("Take a job out of the queues, and stop it where it runs."))
@click.argument("number", type=click.IntRange(1))
def cancel(number: int) -> None:
    """A node that is away hears of it when it is back."""
    found = execute(_cancel(number))
    working = [host.node for host in found.hosts if host.state == "cancelling"]
    if working:
        note(tr("being stopped on {names}", names=", ".join(working)))
    else:
        note(tr("job {job} is cancelled", job=number))


async def _cancel(number: int) -> Job:
    async with connected() as client:
        try:
            return await api.cancel(client, number)
        except Conflict as error:
            raise Conflict(error.message, hint=tr("`llmctl job show {job}` shows how it ended", job=number)) from None


@job.command(help=tr("Who changed a job, its nodes and batches, and when."))
@click.argument("number", type=click.IntRange(1))
@json_option
def events(number: int, as_json: bool) -> None:
    """Every change of a state, oldest first."""
    found = execute(_history(number))
    if as_json:
        emit_json(found)
        return
    table([tr("Time"), tr("By"), tr("What"), tr("State"), tr("Note")], map(change_row, found))


async def _history(number: int) -> list[JobChange]:
    found: list[JobChange] = []
    async with connected() as client:
        while page := await history(client, number, after=found[-1].id if found else 0):
            found += page
    return found


for command in (approve, deny, files):
    job.add_command(command)
for command in job.commands.values():
    jobs.add_command(command)

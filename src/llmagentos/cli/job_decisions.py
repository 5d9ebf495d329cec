"""`llmctl job approve|deny`."""

from __future__ import annotations

import click

from llmagentos.api import jobs as api
from llmagentos.api.jobs import Job
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import note
from llmagentos.core.i18n import tr


@click.command(help=tr("Let a job run that needs approval."))
@click.argument("number", type=click.IntRange(1))
@click.option("--reason", help=tr("Why; kept with the job."))
def approve(number: int, reason: str | None) -> None:
    """The first word counts."""
    execute(_decide(number, reason, approved=True))
    note(tr("job {job} is approved", job=number))


@click.command(help=tr("Refuse a job that needs approval: it is cancelled."))
@click.argument("number", type=click.IntRange(1))
@click.option("--reason", help=tr("Why; kept with the job."))
def deny(number: int, reason: str | None) -> None:
    """The first word counts."""
    execute(_decide(number, reason, approved=False))
    note(tr("job {job} is denied", job=number))


async def _decide(number: int, reason: str | None, *, approved: bool) -> Job:
    async with connected() as client:
        return await (api.approve if approved else api.deny)(client, number, reason)

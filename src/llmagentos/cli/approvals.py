"""`llmctl approvals`, `approve`, `deny`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import click
import msgspec

from llmagentos.api import approvals as api
from llmagentos.api.approvals import Answered, Approval
from llmagentos.api.client import ApiClient
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.control import for_each
from llmagentos.cli.output import ago, duration, emit_json, json_option, note, short, table
from llmagentos.core.i18n import tr


@click.command(help=tr("List the tool calls and jobs that wait for a person."))
@json_option
def approvals(as_json: bool) -> None:
    """The oldest first."""
    found = execute(_listing())
    if as_json:
        emit_json(found)
        return
    now = time.time()
    table(
        [
            tr("Approval"),
            tr("Kind"),
            tr("Agent"),
            tr("Tool or playbook"),
            tr("Arguments"),
            tr("Asked by"),
            tr("Since"),
            tr("Expires in"),
        ],
        (_row(each, now) for each in found),
        empty=tr("Nothing waits for a person."),
    )


def _row(each: Approval, now: float) -> list[object]:
    arguments = msgspec.json.encode(each.arguments).decode()
    left = duration(max(0.0, each.expires - now))
    kind = tr("job") if each.kind == "job" else tr("call")
    return [each.id, kind, each.agent or "-", each.tool, short(arguments, 60), each.requested_by, ago(each.asked), left]


async def _listing() -> list[Approval]:
    async with connected() as client:
        return await api.listing(client)


@click.command(help=tr("Agree to tool calls and jobs: each is made, or begins, at once."))
@click.argument("approval", nargs=-1, required=True)
@click.option("--reason", help=tr("Why, for others to read."))
def approve(approval: tuple[str, ...], reason: str | None) -> None:
    """Ids as `llmctl approvals` lists them; a run's id is enough when only one of its calls waits."""
    _each(approval, reason, api.approve)


@click.command(help=tr("Refuse tool calls (the agent is told why, and goes on) and jobs (they are cancelled)."))
@click.argument("approval", nargs=-1, required=True)
@click.option("--reason", help=tr("Why; the agent reads it."))
def deny(approval: tuple[str, ...], reason: str | None) -> None:
    """Ids as `llmctl approvals` lists them; a run's id is enough when only one of its calls waits."""
    _each(approval, reason, api.deny)


def _each(
    wanted: tuple[str, ...], reason: str | None, act: Callable[[ApiClient, str, str | None], Awaitable[Answered]]
) -> None:
    async def one(client: ApiClient, approval: str) -> None:
        found = await act(client, approval, reason)
        if found.approval.job is not None:
            job = found.approval.job
            note(tr("job {job} is approved", job=job) if found.approved else tr("job {job} is denied", job=job))
            return
        told = tr("approved: {tool} of run {run}") if found.approved else tr("denied: {tool} of run {run}")
        note(told.format(tool=found.approval.tool, run=found.approval.run))

    for_each(wanted, one)

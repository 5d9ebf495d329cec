"""`llmctl ps`."""

from __future__ import annotations

import time

import click

from llmagentos.api import runs as api
from llmagentos.api.runs import RunSort, RunState, RunSummary
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import ago, duration, emit_json, json_option, note, short, state, table
from llmagentos.core.i18n import tr


@click.command(help=tr("List the runs that have not ended."))
@click.option("-a", "--all", "ended", is_flag=True, help=tr("Also runs that have ended."))
@click.option("--agent", help=tr("Only runs of this agent."))
@click.option("--state", "wanted", type=click.Choice([each.value for each in RunState]), help=tr("Only in this state."))
@click.option(
    "--sort",
    type=click.Choice([each.value for each in RunSort]),
    default=RunSort.NEWEST.value,
    help=tr("What comes first."),
)
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=100, help=tr("The most to list."))
@click.option("--skip", type=click.IntRange(0), default=0, help=tr("Leave out so many at the beginning."))
@json_option
def ps(ended: bool, agent: str | None, wanted: str | None, sort: str, limit: int, skip: int, as_json: bool) -> None:
    """Newest first, unless sorted."""
    one = RunState(wanted) if wanted else None
    found = execute(_listing(ended, agent, one, RunSort(sort), limit, skip))
    if as_json:
        emit_json(found)
        return
    now = time.time()
    table(
        [
            tr("Run"),
            tr("Agent"),
            tr("State"),
            tr("Prio"),
            tr("Waiting"),
            tr("Started"),
            tr("Duration"),
            tr("Tokens"),
            tr("Cost"),
            tr("Request"),
        ],
        (_row(run, now) for run in found),
        empty=tr("No runs.") if ended or one else tr("Nothing is running. `llmctl ps -a` lists runs that have ended."),
    )
    if len(found) == limit:
        note(tr("{count} are listed, there may be more: --limit, --skip", count=limit))


def _row(run: RunSummary, now: float) -> list[object]:
    return [
        run.id,
        run.agent,
        state(run.state.value),
        run.priority,
        waiting(run),
        ago(run.created),
        duration((run.ended or now) - run.started if run.started else None),
        run.tokens_in + run.tokens_out,
        money(run.money),
        short(run.input, 50),
    ]


def money(nano: int) -> str:
    """An amount in billionths of the currency of the prices in llmagentos.yaml; `-` for nothing."""
    return f"{nano / 1e9:.4f}" if nano else "-"


def waiting(run: RunSummary) -> str:
    """What a run waits for, and at which place."""
    if run.state is RunState.WAITING:
        return tr("approval of {tool}", tool=short(", ".join(run.approvals), 40))
    if run.state is RunState.PAUSED:
        return tr("paused by {who}", who=short(run.paused or "?", 30))
    if run.wait is not None and run.wait.reason == "tools":
        return tr("tools that are away: {what}", what=short(run.wait.told or "?", 60))
    if run.wait is not None:
        reasons = {
            "slots": tr("a slot"),
            "loading": tr("model is loading"),
            "rate": tr("limit per minute"),
            "backoff": tr("endpoint asked to wait"),
            "held": tr("held"),
            "preempted": tr("preempted: a slot again"),
        }
        reason = reasons.get(run.wait.reason, run.wait.reason)
        return f"{reason} ({run.wait.model} #{run.wait.position})"
    return tr("a host") if run.state is RunState.QUEUED else "-"


async def _listing(
    ended: bool, agent: str | None, wanted: RunState | None, sort: RunSort, limit: int, skip: int
) -> list[RunSummary]:
    async with connected() as client:
        return await api.listing(client, ended=ended, agent=agent, state=wanted, sort=sort, limit=limit, offset=skip)

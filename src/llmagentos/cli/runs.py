"""`llmctl ask`, `chat`, `ps`, `logs`, `trace`, `wait`, `kill`."""

from __future__ import annotations

import sys
import time

import click

from llmagentos.api import agents
from llmagentos.api import runs as api
from llmagentos.api.runs import MAX_INPUT, Run, RunState, RunSummary
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import ago, duration, emit, emit_json, json_option, note, short, state, table
from llmagentos.cli.timeline import line, tree
from llmagentos.cli.watching import Interrupted, converse, watch
from llmagentos.core.errors import InvalidInput, LLMAgentOSError
from llmagentos.core.i18n import tr
from llmagentos.core.ids import new_id

_AS_SHOWN = 80


class RunFailed(LLMAgentOSError):
    """The run that the command started or waited for did not succeed."""

    code = "run_failed"


@click.command(help=tr("Ask an agent; its answer is printed as it is written. Ctrl-C stops the run."))
@click.argument("agent")
@click.argument("request", required=False)
@click.option("--session", help=tr("Requests of the same session see each other's answers."))
@json_option
def ask(agent: str, request: str | None, session: str | None, as_json: bool) -> None:
    """Without a request (or with `-`) it is read from standard input."""
    if request is None or request == "-":
        request = sys.stdin.read(MAX_INPUT + 1)
    if not request.strip():
        raise InvalidInput(tr("the request is empty"), hint=tr('`llmctl ask {agent} "..."`', agent=agent))
    run = execute(_ask(agent, request, session, as_json))
    if as_json:
        emit_json(run)
    _require_success(run)


async def _ask(agent: str, request: str, session: str | None, as_json: bool) -> Run:
    async with connected() as client:
        started = await api.start(client, agent, request, session=session)
        host = await agents.get(client, agent)
        if not host.online:
            note(tr("{host} is not there: the run waits for it", host=host.host))
        try:
            return await watch(client, started.id, quiet=as_json)
        except Interrupted as interrupted:
            note(tr("run {run} stopped", run=interrupted.run))
            raise click.exceptions.Exit(130) from None


def _require_success(run: Run) -> None:
    if run.state is RunState.SUCCEEDED:
        return
    if run.state is RunState.KILLED:
        raise RunFailed(tr("the run {run} was stopped by {who}", run=run.id, who=run.killed_by))
    raise RunFailed(tr("the run {run} failed: {error}", run=run.id, error=run.error), hint=f"`llmctl trace {run.id}`")


@click.command(help=tr("Talk with an agent. An empty line or Ctrl-D ends it, Ctrl-C stops an answer."))
@click.argument("agent")
def chat(agent: str) -> None:
    """Every line is a request of one session."""
    session = f"chat-{new_id()}"
    note(tr("Talking with {agent}. An empty line or Ctrl-D ends it, Ctrl-C stops an answer.", agent=agent))
    while True:
        try:
            request = input("> ") if sys.stdin.isatty() else input()
        except (EOFError, KeyboardInterrupt):
            note("")
            return
        if not request.strip():
            return
        execute(converse(agent, request, session))


@click.command(help=tr("List the runs that have not ended."))
@click.option("-a", "--all", "ended", is_flag=True, help=tr("Also runs that have ended."))
@click.option("--agent", help=tr("Only runs of this agent."))
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=100, help=tr("The most to list."))
@json_option
def ps(ended: bool, agent: str | None, limit: int, as_json: bool) -> None:
    """Newest first."""
    found = execute(_listing(ended, agent, limit))
    if as_json:
        emit_json(found)
        return
    now = time.time()
    table(
        [tr("Run"), tr("Agent"), tr("State"), tr("Started"), tr("Duration"), tr("Tokens"), tr("Request")],
        (
            [
                run.id,
                run.agent,
                state(run.state.value),
                ago(run.created),
                duration((run.ended or now) - run.started if run.started else None),
                run.tokens_in + run.tokens_out,
                short(run.input, 50),
            ]
            for run in found
        ),
        empty=tr("No runs.") if ended else tr("Nothing is running. `llmctl ps -a` lists runs that have ended."),
    )


async def _listing(ended: bool, agent: str | None, limit: int) -> list[RunSummary]:
    async with connected() as client:
        return await api.listing(client, ended=ended, agent=agent, limit=limit)


@click.command(help=tr("Show a run's events."))
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help=tr("Go on until the run has ended."))
@json_option
def logs(run: str, follow: bool, as_json: bool) -> None:
    """One line an event; with `--json` one JSON document a line."""
    execute(_logs(run, follow, as_json))


async def _logs(prefix: str, follow: bool, as_json: bool) -> None:
    async with connected() as client:
        found = await api.get(client, prefix)
        if not follow:
            for event in await api.events(client, found.id):
                emit(line(event, as_json=as_json))
            return
        await watch(client, found.id, quiet=True, told=lambda event: emit(line(event, as_json=as_json)))


@click.command(help=tr("Show a run's steps with times and tokens."))
@click.argument("run")
@json_option
def trace(run: str, as_json: bool) -> None:
    """A tree: the run, its model calls and tool calls."""
    found, events = execute(_trace(run))
    if as_json:
        emit_json({"run": found, "events": events})
        return
    for text in tree(found, events):
        emit(text)


async def _trace(prefix: str) -> tuple[Run, list[api.RunEvent]]:
    async with connected() as client:
        found = await api.get(client, prefix)
        return found, await api.events(client, found.id)


@click.command(help=tr("Wait for a run to end, and print its answer."))
@click.argument("run")
@json_option
def wait(run: str, as_json: bool) -> None:
    """Exits with 1 when the run did not succeed."""
    found = execute(_wait(run))
    if as_json:
        emit_json(found)
    elif found.answer is not None:
        emit(found.answer)
    _require_success(found)


async def _wait(prefix: str) -> Run:
    async with connected() as client:
        return await watch(client, (await api.get(client, prefix)).id, quiet=True)


@click.command(help=tr("Stop runs. The model stops generating at once."))
@click.argument("run", nargs=-1, required=True)
def kill(run: tuple[str, ...]) -> None:
    """Ids or their unique beginnings."""
    for killed in execute(_kill(run)):
        note(tr("run {run} stopped", run=killed.id))


async def _kill(prefixes: tuple[str, ...]) -> list[Run]:
    async with connected() as client:
        return [await api.kill(client, prefix) for prefix in prefixes]

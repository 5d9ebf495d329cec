"""`llmctl ask`, `chat`, `logs`, `trace`, `wait`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from llmagentos.api import agents
from llmagentos.api import runs as api
from llmagentos.api.attachments import upload
from llmagentos.api.runs import MAX_INPUT, Run, RunState
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.control import asking_run, priority_option
from llmagentos.cli.output import emit, emit_json, json_option, note
from llmagentos.cli.timeline import line, tree
from llmagentos.cli.watching import Interrupted, converse, watch
from llmagentos.core.errors import InvalidInput, LLMAgentOSError
from llmagentos.core.i18n import tr
from llmagentos.core.ids import new_id


class RunFailed(LLMAgentOSError):
    """The run that the command started or waited for did not succeed."""

    code = "run_failed"


@click.command(help=tr("Ask an agent; its answer is printed as it is written. Ctrl-C stops the run."))
@click.argument("agent")
@click.argument("request", required=False)
@click.option("--session", help=tr("Requests of the same session see each other's answers."))
@click.option(
    "-f",
    "--file",
    "files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help=tr("A file that goes with the request: text, or a picture. May be given several times."),
)
@priority_option
@json_option
def ask(
    agent: str,
    request: str | None,
    session: str | None,
    files: tuple[Path, ...],
    priority: int | None,
    as_json: bool,
) -> None:
    """Without a request (or with `-`) it is read from standard input."""
    if request is None or request == "-":
        request = sys.stdin.read(MAX_INPUT + 1)
    if not request.strip():
        raise InvalidInput(tr("the request is empty"), hint=tr('`llmctl ask {agent} "..."`', agent=agent))
    run = execute(_ask(agent, request, session, files, priority, as_json))
    if as_json:
        emit_json(run)
    _require_success(run)


async def _ask(
    agent: str, request: str, session: str | None, files: Sequence[Path], priority: int | None, as_json: bool
) -> Run:
    async with connected() as client:
        host = await agents.get(client, agent)
        attached = [await upload(client, path.name, path.read_bytes()) for path in files]
        started = await api.start(
            client, agent, request, session=session, priority=priority, parent=asking_run(), attachments=attached
        )
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

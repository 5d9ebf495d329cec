"""`llmctl kill`, `pause`, `resume`, `nice`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click

from llmagentos.api import control as api
from llmagentos.api.client import ApiClient
from llmagentos.api.runs import Run
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import fail, note
from llmagentos.core.errors import CallerError, InvalidInput
from llmagentos.core.i18n import tr
from llmagentos.kernel.calls import priority_of

F = TypeVar("F", bound=Callable[..., Any])

RUN_VARIABLE = "LLMAGENTOS_RUN"
"""In the environment of a run's program: the run that whatever it asks for belongs to."""


class Priority(click.ParamType[int]):
    """`realtime`, `interactive`, `batch`, or -20 (first) to 19 (last)."""

    name = "priority"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The nice value."""
        try:
            return priority_of(str(value))
        except InvalidInput as error:
            self.fail(f"{error.message}\n{error.hint or ''}", param, ctx)


def priority_option(command: F) -> F:
    """`--priority`: the command gets `priority: int | None`."""
    told = tr("realtime, interactive, batch, or -20 (first) to 19 (last); without it the agent's own.")
    return click.option("--priority", type=Priority(), help=told)(command)


def asking_run() -> str | None:
    """The run as part of which this command was started."""
    return os.environ.get(RUN_VARIABLE) or None


@click.command(help=tr("Stop runs, and the runs that they asked for. The model stops generating at once."))
@click.argument("run", nargs=-1, required=True)
def kill(run: tuple[str, ...]) -> None:
    """Ids or their unique beginnings."""
    _each(run, api.kill, lambda found: tr("run {run} stopped", run=found.id))


@click.command(help=tr("Pause runs: models stop at once, and go on when they are resumed. A tool's call is finished."))
@click.argument("run", nargs=-1, required=True)
@click.option("--now", is_flag=True, help=tr("Stop a tool's call too: it counts as one that was cut off."))
@click.option("--reason", help=tr("Why, for others to read."))
def pause(run: tuple[str, ...], now: bool, reason: str | None) -> None:
    """They stay paused, through restarts too, until they are resumed."""

    async def act(client: ApiClient, prefix: str) -> Run:
        return await api.pause(client, prefix, now=now, reason=reason)

    _each(run, act, lambda found: tr("run {run} is paused; `llmctl resume {run}` lets it go on", run=found.id))


@click.command(help=tr("Let paused runs go on."))
@click.argument("run", nargs=-1, required=True)
def resume(run: tuple[str, ...]) -> None:
    """Each goes on after the last thing that it did."""
    _each(run, api.resume, lambda found: tr("run {run} goes on", run=found.id))


@click.command(
    context_settings={"ignore_unknown_options": True},
    help=tr("Change whose calls go first: realtime, interactive, batch, or -20 (first) to 19 (last)."),
)
@click.argument("run")
@click.argument("priority", type=Priority())
def nice(run: str, priority: int) -> None:
    """Calls that wait move at once; calls that an engine answers already are left alone."""

    async def act(client: ApiClient, prefix: str) -> Run:
        return await api.renice(client, prefix, priority)

    _each((run,), act, lambda found: tr("run {run} has priority {priority}", run=found.id, priority=found.priority))


def _each(
    prefixes: tuple[str, ...], act: Callable[[ApiClient, str], Awaitable[Run]], told: Callable[[Run], str]
) -> None:
    """`act` on each run, and say what came of it."""

    async def one(client: ApiClient, prefix: str) -> None:
        note(told(await act(client, prefix)))

    for_each(prefixes, one)


def for_each(wanted: Sequence[str], act: Callable[[ApiClient, str], Awaitable[None]]) -> None:
    """`act` on each of `wanted`, also on those after one that cannot be: why is said, and told by the exit code."""

    async def main() -> int:
        code = 0
        async with connected() as client:
            for one in wanted:
                try:
                    await act(client, one)
                except CallerError as error:
                    code = fail(error)
        return code

    if code := execute(main()):
        raise click.exceptions.Exit(code)

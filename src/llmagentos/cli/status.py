"""`llmctl status`: the processes on this machine, and what the server says of itself, models and nodes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from llmagentos.api.client import ApiClient
from llmagentos.api.system import SystemInfo
from llmagentos.cli.connect import execute
from llmagentos.cli.output import ago, duration, emit, emit_json, fields, json_option, note, state, table
from llmagentos.core.discovery import read, state_of
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.core.i18n import tr
from llmagentos.core.state import ChildStatus, Holder, StateDirectory


class Status(msgspec.Struct, frozen=True):
    """What `--json` prints. `server` is None when it does not answer, and `error` says why."""

    state: str
    running: bool
    supervisor: Holder | None
    processes: list[ChildStatus]
    server: SystemInfo | None = None
    error: str | None = None


@click.command(help=tr("Show what runs here."))
@click.option(
    "--state",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help=tr("State directory (default: the nearest .llmagentos)."),
)
@json_option
@click.pass_context
def status(ctx: click.Context, directory: Path | None, as_json: bool) -> None:
    """Exit code 0 when it runs and answers, 1 otherwise."""
    found = gather(StateDirectory(directory.absolute() if directory else state_of()))
    if as_json:
        emit_json(found)
    else:
        _show(found)
    ctx.exit(0 if found.server is not None else 1)


def gather(directory: StateDirectory) -> Status:
    """The state of the system whose directory this is, without failing when parts are down."""
    holder = directory.holder()
    if holder is None:
        return Status(str(directory.root), False, None, [])
    processes = directory.recorded()
    try:
        server = execute(_ask(directory))
    except LLMAgentOSError as error:
        return Status(str(directory.root), True, holder, processes, None, error.message)
    return Status(str(directory.root), True, holder, processes, server)


async def _ask(directory: StateDirectory) -> SystemInfo:
    credentials = read(directory.credentials)
    async with ApiClient(credentials.server, credentials.token, tls=credentials.tls(), timeout=5) as client:
        return await client.get("/api/v1/system", SystemInfo)


def _show(found: Status) -> None:
    if found.supervisor is None:
        note(tr("Nothing runs on {path}.", path=found.state))
        return
    fields(_facts(found, found.supervisor))
    emit()
    table(
        [tr("Process"), tr("State"), tr("PID"), tr("Up"), tr("Restarts"), tr("Last exit")],
        [_row(process) for process in found.processes],
    )


def _facts(found: Status, holder: Holder) -> list[tuple[str, Any]]:
    facts = [
        (tr("Address"), holder.address),
        (tr("State directory"), found.state),
        (tr("Supervisor"), tr("process {pid}, up {time}", pid=holder.pid, time=duration(time.time() - holder.started))),
    ]
    if found.server is not None:
        facts.append((tr("Server"), f"{found.server.version}, {found.server.database}, {ago(found.server.started)}"))
    else:
        facts.append((tr("Server"), tr("does not answer: {error}", error=found.error)))
    return facts


def _row(process: ChildStatus) -> list[object]:
    uptime = duration(time.time() - process.started) if process.pid and process.started else "-"
    return [
        process.name,
        state(process.state),
        process.pid or "-",
        uptime,
        process.restarts,
        process.last_exit or "-",
    ]

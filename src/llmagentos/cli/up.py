"""`llmctl up`, `down` and `server`: the only commands that start or stop processes of the system."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmagentos.cli.output import duration, emit, fields, note
from llmagentos.core.config import Loaded, load
from llmagentos.core.discovery import state_of
from llmagentos.core.errors import OperatorError
from llmagentos.core.i18n import tr
from llmagentos.core.state import Holder, StateDirectory

if TYPE_CHECKING:
    from llmagentos.server.supervisor.supervisor import Ready

DOWN_S = 20.0

state_option = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help=tr("State directory (default: ./.llmagentos, or as configured)."),
)
file_option = click.option(
    "-f",
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=tr("Configuration (default: ./llmagentos.yaml when it exists)."),
)


def loaded(file: Path | None, state: Path | None) -> Loaded:
    """The configuration with the state directory of the command line."""
    return load(file, environ={**os.environ, "LLMAGENTOS_STATE": str(state)} if state else None)


@click.command(help=tr("Start the system on this machine: server, local model, node agent."))
@click.option("--detach", is_flag=True, help=tr("Return when it is ready; `llmctl down` stops it."))
@state_option
@file_option
def up(detach: bool, state: Path | None, file: Path | None) -> None:
    """Start everything and stay in the foreground, or return when ready with --detach."""
    configuration = loaded(file, state)
    if detach:
        _detached(configuration)
        return
    from llmagentos.server.supervisor.supervisor import Supervisor

    note(tr("LLMAgentOS on {path}", path=configuration.config.state_path))
    asyncio.run(Supervisor(configuration, terminal=sys.stderr).run(_foreground_ready))


def _foreground_ready(ready: Ready) -> None:
    with suppress(OSError):  # nobody reads it any more: what runs goes on, as it does when the terminal is closed
        show_ready(ready)
        note(tr("Ctrl-C stops it."))


def show_ready(ready: Ready) -> None:
    """Where the system is and how to get in."""
    note(tr("Ready after {time}.", time=duration(ready.seconds)))
    shown = [(tr("Address"), ready.url), (tr("Console"), ready.login)]
    if ready.first_token:
        shown.append((tr("Admin token"), ready.first_token))
    fields(shown)
    if ready.first_token:
        note(tr("The token is shown this once; llmctl on this machine uses it by itself."))


def _detached(configuration: Loaded) -> None:
    state = StateDirectory(configuration.config.state_path)
    state.prepare()
    reader, writer = os.pipe()
    env = {
        **os.environ,
        "LLMAGENTOS_CONFIG": str(configuration.file or ""),
        "LLMAGENTOS_STATE": str(state.root),
    }
    with (state.logs / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmagentos.server.supervisor", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            pass_fds=[writer],
            start_new_session=True,
        )
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    _told(answer, state, process)


def _told(answer: bytes, state: StateDirectory, process: subprocess.Popen[bytes]) -> None:
    import msgspec

    from llmagentos.api import problem
    from llmagentos.core.child import tail
    from llmagentos.server.supervisor.supervisor import Ready

    if not answer:
        raise OperatorError(
            f"the supervisor ended with exit code {process.wait()} before it was ready; "
            f"the end of {state.logs / 'up.log'}:\n{tail(state.logs / 'up.log')}"
        )
    document: dict[str, Any] = msgspec.json.decode(answer)
    if failed := document.get("failed"):
        error = problem.decode(int(failed["status"]), msgspec.json.encode(failed))
        process.wait()
        raise error
    show_ready(msgspec.convert(document["ready"], Ready))
    note(tr("It runs on as process {pid}; `llmctl down` stops it.", pid=process.pid))


@click.command(help=tr("Stop the system that `llmctl up` started."))
@state_option
def down(state: Path | None) -> None:
    """Ask the supervisor to stop and wait until it has."""
    directory = StateDirectory(state.absolute() if state else state_of())
    holder = directory.holder()
    if holder is None:
        emit(tr("Nothing runs on {path}.", path=directory.root))
        return
    names = [child.name for child in directory.recorded() if child.pid is not None]
    if not holder.pid:  # to signal process 0 would be to end our own caller
        raise OperatorError(
            f"a process has taken {directory.root} and does not say which it is",
            hint=f"`fuser {directory.lock}` shows it",
        )
    begun = time.monotonic()
    with suppress(ProcessLookupError):  # it ended by itself in this instant
        os.kill(holder.pid, signal.SIGTERM)
    _await_end(directory, holder)
    emit(
        tr(
            "Stopped {names} on {path} in {time}.",
            names=", ".join(names) or tr("the supervisor"),
            path=directory.root,
            time=duration(time.monotonic() - begun),
        )
    )
    from llmagentos.fleet.node.jobdir import running
    from llmagentos.server.supervisor.supervisor import runs_on

    for job in running(directory.node / "jobs"):
        note(runs_on(job))


def _await_end(directory: StateDirectory, holder: Holder) -> None:
    deadline = time.monotonic() + DOWN_S
    while (now := directory.holder()) is not None and now.pid == holder.pid:
        if time.monotonic() > deadline:
            raise OperatorError(
                f"process {holder.pid} did not stop within {DOWN_S:.0f} s",
                hint=f"`kill -9 {holder.pid}` ends it; nothing acknowledged is lost",
            )
        time.sleep(0.05)


@click.command(help=tr("Run the server alone, without engines and node agent."))
@state_option
@file_option
def server(state: Path | None, file: Path | None) -> None:
    """Become the server process, which keeps the state directory's lock."""
    configuration = loaded(file, state)
    directory = StateDirectory(configuration.config.state_path)
    directory.prepare()
    env = {**os.environ, "LLMAGENTOS_CONFIG": str(configuration.file or ""), "LLMAGENTOS_STATE": str(directory.root)}
    with directory.held(configuration.config.server.url) as lock:
        os.set_inheritable(lock, True)  # the lock belongs to the open file: it stays with the new program
        os.execve(sys.executable, [sys.executable, "-m", "llmagentos.server"], env)  # noqa: S606

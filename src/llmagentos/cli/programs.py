"""`llmctl exec`: a program of any framework as an agent's run.

The program gets OpenAI's base URL and a key that is good for this run's calls and nothing else. This
process is the run's host: it keeps the lease, and ends the program when the run is killed or lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from llmagentos.api import control as api
from llmagentos.api import hosting, runs
from llmagentos.api.client import ApiClient
from llmagentos.api.control import Exit, NewProgram, Program
from llmagentos.api.hosting import LeaseRequest
from llmagentos.api.runs import Killed, RunEvent
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.control import RUN_VARIABLE, asking_run, priority_option
from llmagentos.cli.output import note, warn
from llmagentos.core import discovery
from llmagentos.core.errors import Conflict, LLMAgentOSError, NotFound, OperatorError, Unavailable
from llmagentos.core.i18n import tr
from llmagentos.core.lifecycle import Backoff, die_with

GRACE_S = 5.0
"""A program that was told to end (SIGTERM) has so long before it is killed."""
PATIENCE_S = 30.0
"""How long a server that went away may take to hear how the program ended."""
_RENEWALS = 3
_SECRET = ("LLMAGENTOS_TOKEN", "LLMAGENTOS_TOKEN_FILE")
"""What the caller may do is not what the program may do."""
# OpenAI's Agents SDK asks for a model of OpenAI's when its program names none, and sends its traces, with the key it
# is given, to OpenAI itself: calls are traced here.
_UNLESS_SET = {"OPENAI_DEFAULT_MODEL": "default", "OPENAI_AGENTS_DISABLE_TRACING": "1"}
_FORWARDED = (signal.SIGTERM, signal.SIGHUP)


class NotStarted(OperatorError):
    """The program cannot be started."""

    code = "not_started"
    exit_code = 127  # as shells have it


@click.command(
    "exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    help=tr("Run a program of any framework as an agent's run: its calls to OpenAI's API come here, as this run."),
)
@click.option("--agent", required=True, help=tr("As whose work it counts; a definition of that name is not needed."))
@priority_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(agent: str, priority: int | None, command: tuple[str, ...]) -> None:
    """Its exit code is the program's (128 and the signal's number when a signal ended it)."""
    code = execute(_exec(agent, priority, list(command)))
    raise click.exceptions.Exit(code if code >= 0 else 128 - code)


async def _exec(agent: str, priority: int | None, command: list[str]) -> int:
    async with connected() as client:
        holder = f"{socket.gethostname()[:60]}/{os.getpid()}"
        program = await api.begin(client, NewProgram(agent, command, holder, priority, asking_run()))
        note(tr("run {run}", run=program.run))
        credentials = discovery.discover()
        with _trust(credentials.ca) as bundle:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    env=environment(os.environ, credentials, program, bundle),
                    preexec_fn=die_with(os.getpid()),
                )
            except OSError as error:
                await _tell(client, program, 127)
                raise NotStarted(f"{command[0]}: {error.strerror}") from None
            return await _Hosted(client, program, process).run()


def environment(
    outer: Mapping[str, str], credentials: discovery.Credentials, program: Program, bundle: Path | None
) -> dict[str, str]:
    """The program's environment: where models are and with which key, which run it is; not the caller's own token."""
    base = f"{credentials.server.rstrip('/')}/v1"
    given = {
        "OPENAI_BASE_URL": base,
        "OPENAI_API_BASE": base,  # its name in older clients
        "OPENAI_API_KEY": program.token,
        RUN_VARIABLE: program.run,
    }
    if bundle is not None and "SSL_CERT_FILE" not in outer:
        given["SSL_CERT_FILE"] = str(bundle)
    return _UNLESS_SET | {name: value for name, value in outer.items() if name not in _SECRET} | given


@contextmanager
def _trust(ca: Path | None) -> Iterator[Path | None]:
    """A file of certificates to trust: this machine's, and the server's own `ca`."""
    if ca is None:
        yield None
        return
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        system = ssl.get_default_verify_paths().cafile
        trusted = [Path(system), ca] if system else [ca]
        file.writelines(path.read_text() + "\n" for path in trusted)
        file.flush()
        yield Path(file.name)


class _Hosted:
    """One program under way."""

    def __init__(self, client: ApiClient, program: Program, process: asyncio.subprocess.Process) -> None:
        self._client = client
        self._program = program
        self._process = process

    async def run(self) -> int:
        """Until the program has ended; its exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the terminal sends it to the program as well
        for number in _FORWARDED:
            loop.add_signal_handler(number, self._signal, number)
        beside = [asyncio.create_task(self._renew()), asyncio.create_task(self._follow())]
        try:
            code = await self._process.wait()
            await _tell(self._client, self._program, code)
            return code
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _renew(self) -> None:
        pause = self._program.lease_s / _RENEWALS
        request = LeaseRequest(self._program.fence)
        while True:
            await asyncio.sleep(pause)
            try:
                pause = (await hosting.lease(self._client, self._program.run, request)).lease_s / _RENEWALS
            except (Conflict, NotFound) as error:
                await self._end(tr("the run is over ({error}): its program is ended", error=error.message))
                return
            except LLMAgentOSError:
                continue  # the server is away: it gives the run back to us when it is there again

    async def _follow(self) -> None:
        """Hear at once that the run was killed."""
        backoff, after = Backoff(first=0.5, most=5.0), 0
        while True:
            with suppress(LLMAgentOSError):
                async for item in runs.follow(self._client, self._program.run, after=after):
                    if isinstance(item, RunEvent):
                        after = item.seq
                        if isinstance(item.data, Killed):
                            await self._end(tr("run {run} stopped", run=self._program.run))
                            return
            await asyncio.sleep(backoff.died(0.0))  # also when it just ends: the server stops, or the run is over

    async def _end(self, told: str) -> None:
        """Have the program and what it started end: SIGTERM, and SIGKILL for who is there after `GRACE_S`."""
        import psutil

        note(told)
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self._process.pid)
            family = [*found.children(recursive=True), found]
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self._process.wait()
            for process in family:
                with suppress(psutil.NoSuchProcess):  # by its identity, not only its number
                    process.kill()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


async def _tell(client: ApiClient, program: Program, code: int) -> None:
    """Say how the program ended, and again while the server is away."""
    backoff, loop = Backoff(first=0.2, most=2.0), asyncio.get_running_loop()
    end = loop.time() + PATIENCE_S
    while True:
        try:
            await api.end(client, program.run, Exit(program.fence, code))
            return
        except Unavailable as error:
            if loop.time() > end:
                warn(tr("the server was not told how the program ended: {error}", error=error.message))
                return
            await asyncio.sleep(backoff.died(0.0))
        except (Conflict, NotFound):  # killed, or lost: its log says so
            return

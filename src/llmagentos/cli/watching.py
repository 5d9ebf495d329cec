"""Following a run in a terminal: what is generated as it comes, through restarts of the server, until its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from llmagentos.api import control
from llmagentos.api import runs as api
from llmagentos.api.client import ApiClient
from llmagentos.api.retelling import Retelling, Retold
from llmagentos.api.runs import (
    Answered,
    ApprovalRequested,
    ModelCalled,
    ModelReplied,
    Purpose,
    Run,
    RunDelta,
    RunEvent,
)
from llmagentos.cli.connect import connected
from llmagentos.cli.output import emit, note, paint
from llmagentos.core.errors import Conflict, LLMAgentOSError, Unavailable
from llmagentos.core.i18n import tr
from llmagentos.core.lifecycle import Backoff

PATIENCE_S = 60.0
"""How long a server that went away may take to come back."""


class Interrupted(Exception):
    """Ctrl-C: the run was stopped."""

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.run = run


async def watch(client: ApiClient, run: str, *, quiet: bool, told: Callable[[RunEvent], None] | None = None) -> Run:
    """Follow `run` to its end and return it. Unless `quiet`, its answer and sources are printed as they come.

    `told` gets every event. Raises `Interrupted` after Ctrl-C; when only watching (`told` or `quiet`), Ctrl-C
    ends the watching and leaves the run alone.
    """
    printer = _Printer(run, quiet=quiet)
    following = asyncio.ensure_future(_follow(client, run, printer, told))
    with _on_interrupt(following.cancel, active=not quiet):
        try:
            return await following
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            with contextlib.suppress(Conflict):  # it ended by itself at the last moment
                await control.kill(client, run)
            printer.end_line()
            raise Interrupted(run) from None


async def converse(agent: str, request: str, session: str) -> None:
    """One turn of a conversation; what goes wrong is said, and the conversation goes on."""
    async with connected() as client:
        started = await api.start(client, agent, request, session=session)
        try:
            run = await watch(client, started.id, quiet=False)
        except Interrupted:
            note(tr("stopped"))
            return
        if run.answer is None:
            note(f"{paint('error:', 'red', bold=True, err=True)} {run.error or tr('the run was stopped')}")


async def _follow(client: ApiClient, run: str, printer: _Printer, told: Callable[[RunEvent], None] | None) -> Run:
    after = 0
    backoff = Backoff(first=0.2, most=2.0)
    loop = asyncio.get_running_loop()
    away_since: float | None = None
    while True:
        try:
            async for item in api.follow(client, run, after=after):
                away_since = None
                if isinstance(item, RunEvent):
                    seen = await _as_seen(client, run, item)  # when the server is away now, the event comes again
                    after = item.seq
                    if told is not None:
                        told(item)
                    item = seen
                printer.show(item)
            if (found := await api.get(client, run)).state.ended:
                return found
            raise Unavailable("the stream of events ended before the run")
        except Unavailable as error:
            away_since = away_since if away_since is not None else loop.time()
            if loop.time() - away_since > PATIENCE_S:
                raise
            printer.lost(error)
            await asyncio.sleep(backoff.died(0.0))


async def _as_seen(client: ApiClient, run: str, event: RunEvent) -> RunEvent:
    """An answer with the values that only who asked may see: the log has placeholders for them."""
    if not isinstance(event.data, Answered):
        return event
    found = await api.get(client, run)
    answered = replace(event.data, text=found.answer or event.data.text, sources=found.sources)
    return replace(event, data=answered)


class _Printer:
    """Prints an answer as it is generated, and once more only when it differs from what was generated."""

    def __init__(self, run: str, *, quiet: bool) -> None:
        self._run = run
        self._quiet = quiet
        self._shown = ""
        self._retelling = Retelling()
        self._replied = True
        self._told_lost = False

    def show(self, item: RunEvent | RunDelta) -> None:
        """Print what `item` adds."""
        self._told_lost = False
        if self._quiet:
            return
        if isinstance(item, RunEvent) and isinstance(item.data, ApprovalRequested):
            self.end_line()
            self._asked(item.data)
        elif isinstance(item, RunDelta):
            self._piece(item)
        elif isinstance(item.data, ModelReplied):
            self._replied = True
        elif isinstance(item.data, ModelCalled) and item.data.purpose is Purpose.ANSWER:
            self._called()
        elif isinstance(item.data, Answered):
            self._answer(item.data)

    def _called(self) -> None:
        if self._replied:
            self.end_line()
            self._retelling = Retelling()
        self._retelling.again()  # after a pause, or when a host was lost, the answer begins again
        self._replied = False

    def _piece(self, piece: RunDelta) -> None:
        if piece.begins:  # the connection was lost
            self._retelling.again()
        try:
            new = self._retelling.told(piece.text)
        except Retold:  # it is another answer this time
            self.end_line()
            self._retelling = Retelling()
            new = self._retelling.told(piece.text)
        self._shown += new
        emit(new, newline=False)

    def _answer(self, answered: Answered) -> None:
        if self._shown.strip() != answered.text.strip():
            self.end_line()
            emit(answered.text)
            self._shown = ""
        self.end_line()
        if answered.sources:
            emit("")
            emit(tr("Sources:"))
            for number, source in enumerate(answered.sources, 1):
                emit(f"  [{number}] {record(source)}")

    def _asked(self, asked: ApprovalRequested) -> None:
        arguments = msgspec.json.encode(asked.arguments).decode()
        call = f"{self._run}.{asked.call_id}"
        note(
            tr(
                "{tool}({arguments}) waits for a person: `llmctl approve {call}`, or `deny`",
                tool=asked.name,
                arguments=arguments,
                call=call,
            )
        )

    def end_line(self) -> None:
        """End the line that pieces were printed on."""
        if self._shown and not self._shown.endswith("\n"):
            emit("")
        self._shown = ""

    def lost(self, error: LLMAgentOSError) -> None:
        """Say once that the server is away."""
        if not self._told_lost:
            self.end_line()
            note(tr("connection lost ({error}); the run goes on, waiting for the server", error=error.message))
            self._told_lost = True


def record(source: Any) -> str:
    """A source on one line."""
    if isinstance(source, dict):
        return "; ".join(f"{name}: {value}" for name, value in source.items())
    return str(source)


@contextlib.contextmanager
def _on_interrupt(stop: Callable[[], object], *, active: bool) -> Iterator[None]:
    """Ctrl-C calls `stop` instead of ending the program, inside the block."""
    if not active:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)

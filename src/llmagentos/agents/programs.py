"""Runs whose work is a program of somebody else's: any framework that speaks OpenAI's API.

The program runs where it was started; its host is whoever started it, and keeps the lease. Here are its
run, a token that is good for the run's calls to models and nothing else, and the record of those calls.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmagentos.agents import log as runlog
from llmagentos.agents.ledger import PROGRAM, Ledger
from llmagentos.agents.log import Log
from llmagentos.api.agents import AgentSpec
from llmagentos.api.control import NewProgram, Program
from llmagentos.api.llm import CallInfo
from llmagentos.api.runs import MAX_INPUT, Answered, Exited, ModelUsed, Run, RunEvent
from llmagentos.core import log
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, LLMAgentOSError, NotFound
from llmagentos.security.identity import Kind

TOKEN_S = 3600.0
"""A program's token lives this long after the last time that it was extended; it is revoked when the run ends."""
VERSION = 0
"""The version of an agent whose definition is not what was executed."""

_log = log.get(__name__)


class Tokens(Protocol):
    """What this needs of the tokens."""

    async def create(self, kind: Kind, subject: str, *, by: str, ttl: float | None = None) -> tuple[str, object]: ...
    async def extend(self, kind: Kind, subject: str, ttl: float) -> None: ...
    async def revoke_subject(self, kind: Kind, subject: str) -> int: ...


@dataclass(frozen=True, slots=True)
class _Foreign:
    """The agent as whose work a program counts."""

    spec: AgentSpec
    version: int = VERSION
    host: str = PROGRAM


class Programs:
    """`forget` has revoked tokens refused at once; `flush` has the calls that ended given to `record`."""

    def __init__(
        self,
        ledger: Ledger,
        tokens: Tokens,
        clock: Clock,
        *,
        forget: Callable[[], None],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._tokens = tokens
        self._clock = clock
        self._forget = forget
        self._flush = flush
        self._extend_at: dict[str, float] = {}
        self._over: asyncio.Queue[str] = asyncio.Queue()
        ledger.on_change.append(self._changed)

    async def begin(self, request: NewProgram, spec: AgentSpec, *, by: str) -> Program:
        """A run for a program that is about to be started; `spec` has the agent's priority and model."""
        shown = shlex.join(request.command)[:MAX_INPUT]
        run = await self._ledger.create(_Foreign(spec), shown, by=by, priority=request.priority, parent=request.parent)
        fence, lease_s = await self._ledger.take(run.id, request.holder)
        secret, _ = await self._tokens.create(Kind.RUN, run.id, by=by, ttl=TOKEN_S)
        self._extend_at[run.id] = self._clock.monotonic() + TOKEN_S / 2
        return Program(run.id, fence, lease_s, secret)

    async def renewed(self, run: str) -> None:
        """The program still runs: its token has to live on."""
        if self._clock.monotonic() >= self._extend_at.get(run, 0.0):
            await self._tokens.extend(Kind.RUN, run, TOKEN_S)
            self._extend_at[run] = self._clock.monotonic() + TOKEN_S / 2

    async def exited(self, run: str, fence: int, code: int) -> Run:
        """The program has ended. Raises `LeaseLost` or `RunEnded`."""
        await self._flush()
        data = Answered(f"exit code {code}") if code == 0 else Exited(code)
        return runlog.detail(run, await self._ledger.close(run, fence, data))

    async def record(self, calls: Sequence[CallInfo]) -> None:
        """Note the calls of programs in the logs of their runs."""
        for call in calls:
            if call.run_id is None:
                continue
            try:
                if (await self._ledger.state(call.run_id)).request.version == VERSION:
                    await self._ledger.note(call.run_id, _used(call))
            except (Conflict, NotFound) as error:  # cut off by the run's end
                _log.debug("call not noted", run_id=call.run_id, reason=error.message)

    async def tidy(self) -> None:
        """Revoke the tokens of runs that have ended, for ever."""
        while True:
            run = await self._over.get()
            try:
                await self._tokens.revoke_subject(Kind.RUN, run)
            except LLMAgentOSError as error:  # it expires, and the gate refuses an ended run anyway
                _log.warning("token not revoked", run_id=run, reason=error.message)
            self._forget()

    def _changed(self, run: str, state: Log, _: Sequence[RunEvent]) -> None:
        if state.ended_at is not None and state.request.version == VERSION:
            self._extend_at.pop(run, None)
            self._over.put_nowait(run)


def _used(call: CallInfo) -> ModelUsed:
    return ModelUsed(
        call.id,
        call.model,
        call.status,
        call.tokens_in,
        call.tokens_out,
        round(call.queue_s, 4),
        round(call.ttft_s or 0.0, 4),
        round(call.duration_s, 4),
        call.error,
    )

"""Tool calls that wait for a person: who waits, what was answered, and what nobody answered in time.

The question and the answer are events of the run's log, so nothing here is lost with the process: at the start
the open questions are read from the runs that wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Protocol

from llmagentos.agents.ledger import Ledger
from llmagentos.agents.log import SHOWN_INPUT, Log, Question
from llmagentos.agents.records import Row
from llmagentos.agents.states import InvalidTransition, RunEnded
from llmagentos.api.approvals import Answered, Approval
from llmagentos.api.runs import Approved, Denied, RunEvent, RunState
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, InvalidInput, NotFound
from llmagentos.core.events import Hub

TOPIC = "approvals"
"""The hub's topic: an `Approval` when a call begins to wait, `Answered` when it does no more."""
EXPIRED = "nobody"
"""As whom calls are denied that nobody answered."""
SWEEP_S = 0.5

_log = log.get(__name__)


class AlreadyAnswered(Conflict):
    """Somebody else was first."""

    code = "already_answered"


class Unended(Protocol):
    """Every run that has not ended."""

    async def __call__(self) -> Sequence[Row]: ...


class Approvals:
    """The open questions of all runs; one that says no `timeout` of its own waits `timeout_s`."""

    def __init__(self, ledger: Ledger, unended: Unended, hub: Hub, clock: Clock, *, timeout_s: float) -> None:
        self._ledger = ledger
        self._unended = unended
        self._hub = hub
        self._clock = clock
        self._timeout_s = timeout_s
        self._open: dict[str, list[Approval]] = {}
        ledger.on_change.append(self._changed)

    async def begin(self) -> None:
        """At the server's start: the questions that were open when it ended."""
        for row in await self._unended():
            if row.state in (RunState.WAITING, RunState.PAUSED):
                self._changed(row.id, await self._ledger.state(row.id), [])

    def listing(self) -> list[Approval]:
        """The calls that wait, the oldest first."""
        return sorted(self._each(), key=lambda each: (each.asked, each.id))

    def _each(self) -> Iterator[Approval]:
        for waiting in self._open.values():
            yield from waiting

    async def approve(self, approval: str, *, by: str, reason: str | None = None) -> Answered:
        """Let the call be made. Raises `NotFound`, `AlreadyAnswered`, `RunEnded` or `RunPaused`."""
        return await self._answer(await self._find(approval), approved=True, by=by, reason=reason)

    async def deny(self, approval: str, *, by: str, reason: str | None = None) -> Answered:
        """Have the call not be made. Raises as `approve`."""
        return await self._answer(await self._find(approval), approved=False, by=by, reason=reason)

    async def expire(self) -> None:
        """Deny what nobody answered in time, for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._clock.time()
            for late in [each for each in self._each() if each.expires <= now]:
                try:
                    waited = f"no answer within {late.expires - late.asked:.4g} s"
                    await self._answer(late, approved=False, by=EXPIRED, reason=waited)
                except Conflict as error:  # answered just now, or paused: then it is denied when the run is resumed
                    _log.debug("not expired", approval=late.id, reason=error.message)
                except Exception as error:  # the loop goes on until storage works again
                    _log.error("not expired", approval=late.id, error=str(error))

    async def _find(self, approval: str) -> Approval:
        """By its id, by the start of its run's id with the call, or by the run alone when only one call waits."""
        start, _, call = approval.partition(".")
        run = await self._ledger.resolve(start.lower())
        waiting = self._open.get(run, [])
        if not call and len(waiting) > 1:
            raise InvalidInput(
                f"several calls of the run {run} wait", hint=f"name one: {', '.join(each.id for each in waiting[:5])}"
            )
        for each in waiting:
            if each.call_id == call or not call:
                return each
        raise await self._gone(run, call or None)

    async def _answer(self, asked: Approval, *, approved: bool, by: str, reason: str | None) -> Answered:
        kind = Approved if approved else Denied
        try:
            await self._ledger.note(asked.run, kind(asked.call_id, by, reason))
        except (InvalidTransition, RunEnded):
            raise await self._gone(asked.run, asked.call_id) from None
        answer = "expired" if by == EXPIRED else "approved" if approved else "denied"
        metrics.APPROVALS.labels(answer).inc()
        _log.info("tool call answered", approval=asked.id, tool=asked.tool, answer=answer, by=by)
        answered = Answered(asked, approved, by, reason)
        self._hub.publish(TOPIC, answered)
        await self._ledger.offer(asked.run)
        return answered

    async def _gone(self, run: str, call: str | None) -> AlreadyAnswered | NotFound | RunEnded:
        """Why the call does not wait (any more)."""
        for event in reversed(await self._ledger.events(run)):
            data = event.data
            if isinstance(data, Approved | Denied) and call in (None, data.call_id):
                word = "approved" if isinstance(data, Approved) else "denied"
                return AlreadyAnswered(f"{run}.{data.call_id} was already {word} by {data.by}", run=run)
        state = await self._ledger.state(run)
        if state.ended_at is not None:
            return RunEnded(f"the run {run} has ended", run=run)
        return NotFound(f"no call of the run {run} waits for an answer", hint="`llmctl approvals` lists those that do")

    def _changed(self, run: str, state: Log, _: Sequence[RunEvent]) -> None:
        before = {each.call_id for each in self._open.pop(run, [])}
        if state.questions:
            self._open[run] = [self._approval(run, state, question) for question in state.questions]
            for each in self._open[run]:
                if each.call_id not in before:
                    self._hub.publish(TOPIC, each)
        if before or state.questions:
            metrics.APPROVALS_WAITING.set(sum(map(len, self._open.values())))

    def _approval(self, run: str, state: Log, question: Question) -> Approval:
        request = state.request
        wait = question.timeout if question.timeout is not None else self._timeout_s
        return Approval(
            f"{run}.{question.call_id}",
            run,
            request.agent,
            question.call_id,
            question.name,
            question.arguments,
            request.input[:SHOWN_INPUT],
            request.by,
            question.asked,
            question.asked + wait,
            question.notified,
        )

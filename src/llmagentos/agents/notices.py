"""Tells a webhook of tool calls and jobs that wait for a person: at least once each, again until it answers 2xx.

That it took notice is stored with what waits, so a restart does not forget whom it still has to tell. It may
hear of a call twice (the server died between its answer and the event): `Idempotency-Key` is the same then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from llmagentos.api.approvals import Approval
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, LLMAgentOSError
from llmagentos.core.lifecycle import Backoff

LOOK_S = 0.5
AT_ONCE = 4
FIRST_S = 1.0
MOST_S = 300.0

_log = log.get(__name__)

Post = Callable[[bytes, str], Awaitable[int]]
"""`await post(body, key)` -> the HTTP status; `key` is the same whenever the same thing is told."""


Note = Callable[[Approval, int], Awaitable[object]]
"""`await note(approval, attempts)` stores that the webhook took notice. Raises `Conflict` when that does not wait."""


class Notice(msgspec.Struct, frozen=True, tag="approval_requested", tag_field="type"):
    """What the webhook gets."""

    approval: Approval
    console: str
    """The page where it can be answered."""
    commands: list[str]


@dataclass(slots=True)
class _Tries:
    due: float
    count: int = 0
    backoff: Backoff = field(default_factory=lambda: Backoff(first=FIRST_S, most=MOST_S))
    busy: bool = False


class Notices:
    """`waiting()` are the calls to tell of, `post` tells of one; after `attempts` failures it is given up."""

    def __init__(
        self, waiting: Callable[[], list[Approval]], note: Note, post: Post, clock: Clock, *, url: str, attempts: int
    ) -> None:
        self._waiting = waiting
        self._note = note
        self._post = post
        self._clock = clock
        self._url = url
        self._attempts = attempts
        self._tries: dict[str, _Tries] = {}

    async def serve(self) -> None:
        """Tell of every call that begins to wait, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                for approval, tries in self._due():
                    tries.busy = True
                    group.create_task(self._tell(approval, tries))
                await asyncio.sleep(LOOK_S)

    def _due(self) -> list[tuple[Approval, _Tries]]:
        """Whom to tell now, as many as there is room for. Calls that do not wait any more are forgotten."""
        now = self._clock.monotonic()
        untold = {each.id: each for each in self._waiting() if not each.notified}
        self._tries = {key: self._tries.get(key, _Tries(now)) for key in untold}
        room = AT_ONCE - sum(tries.busy for tries in self._tries.values())
        due = [
            (untold[key], tries)
            for key, tries in self._tries.items()
            if not tries.busy and tries.due <= now and tries.count < self._attempts
        ]
        return due[: max(0, room)]

    async def _tell(self, approval: Approval, tries: _Tries) -> None:
        commands = [f"llmctl approve {approval.id}", f'llmctl deny {approval.id} --reason "..."']
        body = msgspec.json.encode(Notice(approval, f"{self._url}/approvals", commands))
        tries.count += 1
        why = None
        try:
            status = await self._post(body, approval.id)
            if not 200 <= status < 300:
                why = f"HTTP {status}"
        except (LLMAgentOSError, OSError, ValueError) as error:
            why = error.message if isinstance(error, LLMAgentOSError) else str(error)
        if why is None:
            await self._told(approval, tries)
        else:
            self._failed(approval, tries, why)
        tries.due = self._clock.monotonic() + tries.backoff.died(0.0)
        tries.busy = False

    async def _told(self, approval: Approval, tries: _Tries) -> None:
        metrics.APPROVAL_NOTICES.labels("ok").inc()
        try:
            await self._note(approval, tries.count)
        except Conflict as error:  # it was answered meanwhile
            _log.debug("notice not noted", approval=approval.id, reason=error.message)
        except Exception as error:  # as storage may fail: the webhook hears of it once more, and the loop goes on
            _log.warning("notice not noted", approval=approval.id, reason=str(error))

    def _failed(self, approval: Approval, tries: _Tries, why: str) -> None:
        given_up = tries.count >= self._attempts
        metrics.APPROVAL_NOTICES.labels("given_up" if given_up else "failed").inc()
        (_log.error if given_up else _log.warning)(
            "the webhook was not told of a call that waits", approval=approval.id, attempt=tries.count, reason=why
        )

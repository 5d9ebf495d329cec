"""Remote A2A agents as tools: those that llmagentos.yaml names, and addresses without a token."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from llmagentos.agents.strangers import plain_text
from llmagentos.agents.tool_agents import PARAMETERS
from llmagentos.agents.tools import CalledBy, OutcomeUnknown, Tool
from llmagentos.api.agents import ToolUse
from llmagentos.api.runs import MAX_INPUT
from llmagentos.core.clock import Clock
from llmagentos.core.config.outside import A2aAgent
from llmagentos.core.errors import ConfigError, DeadlineExceeded, InvalidInput, NotFound, Unavailable, nearest
from llmagentos.core.ids import id_of

if TYPE_CHECKING:
    from llmagentos.agents.a2a.client import Remote

FRESH_S = 300.0
"""A card is asked for again after so long."""
_MOST_CARDS = 200
_MOST_DOC = 2_000


class Tasks(Protocol):
    """The remote tasks that calls of tools began: what outlives this process."""

    async def find(self, run: str, call_id: str) -> str | None: ...
    async def keep(self, run: str, call_id: str, task: str) -> None: ...


class A2aTools:
    """`configured` by name."""

    def __init__(self, configured: Mapping[str, A2aAgent], clock: Clock, tasks: Tasks) -> None:
        self._tasks = tasks
        self._configured = configured
        self._clock = clock
        self._cards: dict[str, tuple[float, Mapping[str, Any]]] = {}

    async def tools(self, use: ToolUse) -> Sequence[Tool]:
        """The one tool that an entry stands for. Raises `NotFound`, `Unavailable` or `ConfigError`."""
        assert use.a2a is not None
        remote = await asyncio.to_thread(_remote, use.a2a, self._spec(use.a2a))
        card = await self._card(use.a2a, remote)
        called = plain_text(card.get("name"), 64)

        async def invoke(arguments: Mapping[str, Any], timeout: float, by: CalledBy) -> Any:
            text = str(arguments.get("request", ""))
            if not text.strip() or len(text) > MAX_INPUT:
                raise InvalidInput(f"the request must have 1 to {MAX_INPUT} characters, not {len(text)}")
            try:
                # A little before the caller's own limit, so that the task is not left behind.
                async with asyncio.timeout(max(0.9 * timeout, timeout - 1.0)):
                    return await self._asked(remote, use, text, by, max(0.8 * timeout, timeout - 2.0))
            except TimeoutError:
                raise DeadlineExceeded(f"{called or use.a2a} has not answered within {timeout:.3g} s") from None

        name = use.name or re.sub(r"[^A-Za-z0-9_-]+", "-", called).strip("-") or "remote-agent"
        doc = use.doc or f"Ask the remote agent {called}. {plain_text(card.get('description'), _MOST_DOC)}"
        # Whether a task is begun twice is up to the other side: a message is not sent again by itself.
        return [Tool(name[:64], doc, PARAMETERS, False, invoke, tuple(use.examples), finds=True)]

    async def _asked(self, remote: Remote, use: ToolUse, text: str, by: CalledBy, timeout: float) -> Any:
        """The answer of the task that the call began before it was interrupted, or else of a new one."""
        if by.again:
            if (task := await self._tasks.find(by.run, by.call_id)) is not None:
                return await remote.await_task(task, timeout)
            if not use.idempotent:
                raise OutcomeUnknown.of(use.name or str(use.a2a))
        message_id = id_of("a2a-call", by.run, by.call_id)
        return await remote.ask(text, message_id, timeout, partial(self._tasks.keep, by.run, by.call_id))

    def _spec(self, wanted: str) -> A2aAgent:
        if wanted.startswith(("http://", "https://")):
            return A2aAgent(wanted)
        if wanted not in self._configured:
            close = nearest(wanted, self._configured)
            raise NotFound(
                f"there is no A2A agent {wanted!r}",
                hint=f"did you mean {close!r}?" if close else "`a2a:` in llmagentos.yaml names them",
            )
        return self._configured[wanted]

    async def _card(self, wanted: str, remote: Remote) -> Mapping[str, Any]:
        known = self._cards.get(wanted)
        if known is not None and self._clock.monotonic() - known[0] < FRESH_S:
            return known[1]
        try:
            card = await remote.card()
        except Unavailable:
            if known is None:
                raise
            return known[1]  # of an agent that is away: a call of it will say so
        while len(self._cards) >= _MOST_CARDS:
            del self._cards[next(iter(self._cards))]
        self._cards[wanted] = (self._clock.monotonic(), card)
        return card


def _remote(name: str, spec: A2aAgent) -> Remote:
    try:
        module = import_module("llmagentos.agents.a2a.client")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"A2A needs a package that is not installed: {error.name}", hint="pip install 'llmagentos[a2a]'"
        ) from None
    remote: Remote = module.Remote(name, spec)
    return remote

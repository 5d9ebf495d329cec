"""The host's surroundings in a module: runs and models over the server's API."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, TypeVar, cast

from msgspec.structs import replace

from llmagentos.agents.model import Prompt, Reply
from llmagentos.agents.slots import lent
from llmagentos.agents.tools import CalledBy, Source, Tool
from llmagentos.agents.wire import EMBEDDING_MODEL, chat_request, reply
from llmagentos.api import hosting
from llmagentos.api.agents import TOOL_KINDS, ToolUse
from llmagentos.api.client import ApiClient
from llmagentos.api.hosting import (
    Append,
    Claim,
    ClaimRequest,
    HostedAgent,
    LeaseRequest,
    ToolCall,
    ToolOffer,
    ToolsRequest,
)
from llmagentos.api.http import ConnectFailed, ConnectionLost
from llmagentos.api.llm import (
    PURPOSE_HEADER,
    RUN_HEADER,
    TIMEOUT_HEADER,
    ChatCompletion,
    EmbeddingRequest,
    Embeddings,
)
from llmagentos.api.runs import Data, RunEvent
from llmagentos.core import log, tracing
from llmagentos.core.errors import DeadlineExceeded
from llmagentos.core.lifecycle import Backoff

T = TypeVar("T")

_GRACE_S = 5.0
"""The gateway ends a call at its deadline; only when it does not, this side does, so much later."""

_WAITS = ("agent", "playbook")
"""Kinds of tools that wait for something else here: meanwhile the run's place is for others."""

_log = log.get(__name__)


class ApiBackend:
    """The runs of `agents`, which `module` hosts in this process. `api` is asked for the client at each call."""

    def __init__(self, api: Callable[[], ApiClient], module: str, agents: Sequence[HostedAgent]) -> None:
        self._api = api
        self._module = module
        self._agents = list(agents)
        self._holder = f"{socket.gethostname()[:60]}/{os.getpid()}"

    async def claim(self, wait: float) -> Claim | None:
        """A run to carry on, or None after `wait` seconds."""
        return await hosting.claim(self._api(), ClaimRequest(self._module, self._agents, self._holder, wait))

    async def append(self, run: str, fence: int, after: int, data: Sequence[Data]) -> Sequence[RunEvent]:
        """Add to the run's log."""
        return await hosting.append(self._api(), run, Append(fence, after, list(data)))

    async def renew(self, run: str, fence: int) -> float:
        """Keep the lease."""
        return (await hosting.lease(self._api(), run, LeaseRequest(fence))).lease_s

    async def release(self, run: str, fence: int) -> None:
        """Give the run up."""
        await hosting.lease(self._api(), run, LeaseRequest(fence, release=True))


class ApiModels:
    """Model calls through the gateway's API. What is generated streams from there to whoever watches the run.

    They are made again while the server is away, until their time is over: they leave nothing behind.
    """

    def __init__(self, api: Callable[[], ApiClient]) -> None:
        self._api = api

    async def complete(self, prompt: Prompt, *, run: str, timeout: float) -> Reply:
        """The reply to `prompt`."""
        purpose = {PURPOSE_HEADER: prompt.gate_purpose}
        return reply(
            await self._post("/v1/chat/completions", chat_request(prompt), ChatCompletion, run, timeout, purpose)
        )

    async def embed(
        self, texts: Sequence[str], *, kind: Literal["query", "passage"], run: str, timeout: float
    ) -> list[list[float]]:
        """A vector for each text."""
        request = EmbeddingRequest(list(texts), EMBEDDING_MODEL, input_type=kind)
        found = await self._post("/v1/embeddings", request, Embeddings, run, timeout, {})
        return [cast("list[float]", vector.embedding) for vector in found.data]

    async def _post(
        self, path: str, request: Any, kind: type[T], run: str, timeout: float, more: Mapping[str, str]
    ) -> T:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout

        async def ask() -> T:
            left = max(0.001, end - loop.time())
            headers = _headers(run, left) | dict(more)
            return await self._api().post(path, request, kind, timeout=left + _GRACE_S, headers=headers)

        try:
            async with asyncio.timeout_at(end + _GRACE_S):
                return await _again(ask, safe=True)
        except TimeoutError:
            raise DeadlineExceeded(f"the server was not there within {timeout:.3g} s") from None


class ApiTools:
    """Tools that only the server has: it calls them for the run, as the log says that it may."""

    def __init__(self, api: Callable[[], ApiClient]) -> None:
        self._api = api

    async def sources(self, claim: Claim) -> Mapping[str, Source]:
        """What the server has for a run. Raises `Forbidden` for what the module was not granted."""
        if all(use.kind == "service" for use in claim.agent.tools):
            return {}
        asked = ToolsRequest(claim.fence)
        offers = await _again(lambda: hosting.tools(self._api(), claim.run, asked), safe=True)

        async def source(use: ToolUse) -> list[Tool]:
            place = claim.agent.tools.index(use)
            return [self._tool(claim, use, offer) for offer in offers if offer.entry == place]

        return dict.fromkeys(TOOL_KINDS, source)

    def _tool(self, claim: Claim, use: ToolUse, offer: ToolOffer) -> Tool:
        safe = offer.idempotent if use.idempotent is None else use.idempotent

        async def invoke(arguments: Mapping[str, Any], timeout: float, by: CalledBy) -> Any:
            asked = ToolCall(claim.fence, by.call_id, dict(arguments), timeout, by.again)

            async def ask() -> Any:
                nonlocal asked
                try:
                    return await hosting.call_tool(self._api(), claim.run, asked)
                except ConnectionLost:
                    asked = replace(asked, again=True)
                    raise

            with lent() if use.kind in _WAITS else nullcontext():
                return await _again(ask, safe=safe or offer.finds)

        known = Tool(offer.name, offer.doc, offer.parameters, offer.idempotent, invoke, tuple(use.examples))
        return dataclasses.replace(known, finds=offer.finds)


async def _again(ask: Callable[[], Awaitable[T]], *, safe: bool) -> T:
    """`ask()`, again while the server is away, until who waits gives up.

    What never reached the server is repeated; what was lost on the way only when that is `safe`.
    """
    backoff = Backoff(first=0.2, most=2.0)
    while True:
        try:
            return await ask()
        except (ConnectFailed, ConnectionLost) as error:
            if not safe and not isinstance(error, ConnectFailed):
                raise
            _log.warning("the server is away", reason=error.message)
        await asyncio.sleep(backoff.died(0.0))


def _headers(run: str, timeout: float) -> dict[str, str]:
    headers = {RUN_HEADER: run, TIMEOUT_HEADER: f"{timeout:.3f}"}
    tracing.inject(headers)
    return headers

"""The host's surroundings in a module: runs and models over the server's API."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Literal, cast

from llmagentos.agents.model import Prompt, Reply
from llmagentos.agents.wire import EMBEDDING_MODEL, chat_request, reply
from llmagentos.api import hosting
from llmagentos.api.client import ApiClient
from llmagentos.api.hosting import Append, Claim, ClaimRequest, HostedAgent, LeaseRequest
from llmagentos.api.llm import (
    PURPOSE_HEADER,
    RUN_HEADER,
    TIMEOUT_HEADER,
    ChatCompletion,
    EmbeddingRequest,
    Embeddings,
)
from llmagentos.api.runs import Data, RunEvent
from llmagentos.core import tracing

_GRACE_S = 5.0
"""The gateway ends a call at its deadline; only when it does not, this side does, so much later."""


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
    """Model calls through the gateway's API. What is generated streams from there to whoever watches the run."""

    def __init__(self, api: Callable[[], ApiClient]) -> None:
        self._api = api

    async def complete(self, prompt: Prompt, *, run: str, timeout: float) -> Reply:
        """The reply to `prompt`."""
        headers = _headers(run, timeout) | {PURPOSE_HEADER: prompt.gate_purpose}
        found = await self._api().post(
            "/v1/chat/completions", chat_request(prompt), ChatCompletion, timeout=timeout + _GRACE_S, headers=headers
        )
        return reply(found)

    async def embed(
        self, texts: Sequence[str], *, kind: Literal["query", "passage"], run: str, timeout: float
    ) -> list[list[float]]:
        """A vector for each text."""
        request = EmbeddingRequest(list(texts), EMBEDDING_MODEL, input_type=kind)
        found = await self._api().post(
            "/v1/embeddings", request, Embeddings, timeout=timeout + _GRACE_S, headers=_headers(run, timeout)
        )
        return [cast("list[float]", vector.embedding) for vector in found.data]


def _headers(run: str, timeout: float) -> dict[str, str]:
    headers = {RUN_HEADER: run, TIMEOUT_HEADER: f"{timeout:.3f}"}
    tracing.inject(headers)
    return headers

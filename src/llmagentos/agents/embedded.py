"""The host's surroundings in the server: the ledger and the gateway, without a detour over the wire."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Literal, cast

from llmagentos.agents.ledger import SERVER, Ledger
from llmagentos.agents.model import Prompt, Reply
from llmagentos.agents.wire import EMBEDDING_MODEL, chat_request, reply
from llmagentos.api.hosting import Claim
from llmagentos.api.llm import EmbeddingRequest
from llmagentos.api.runs import Data, RunEvent
from llmagentos.llm.assembly import assemble
from llmagentos.llm.gateway import Gateway
from llmagentos.security.identity import Identity


class LedgerBackend:
    """The runs of the agents that the server itself hosts."""

    def __init__(self, ledger: Ledger, holder: str) -> None:
        self._ledger = ledger
        self._holder = holder

    async def claim(self, wait: float) -> Claim | None:
        """A run to carry on, or None after `wait` seconds."""
        return await self._ledger.claim(SERVER, self._holder, wait=wait)

    async def append(self, run: str, fence: int, after: int, data: Sequence[Data]) -> Sequence[RunEvent]:
        """Add to the run's log."""
        return await self._ledger.append(run, fence, after, data)

    async def renew(self, run: str, fence: int) -> float:
        """Keep the lease."""
        return self._ledger.renew(run, fence)

    async def release(self, run: str, fence: int) -> None:
        """Give the run up."""
        await self._ledger.release(run, fence)


class GatewayModels:
    """Model calls straight to the gateway."""

    def __init__(self, gateway: Gateway, caller: Identity) -> None:
        self._gateway = gateway
        self._caller = caller

    async def complete(self, prompt: Prompt, *, run: str, timeout: float) -> Reply:
        """The reply to `prompt`."""
        chunks = self._gateway.chat(
            chat_request(prompt), self._caller, run_id=run, purpose=prompt.gate_purpose, timeout=timeout
        )
        async with aclosing(chunks):
            return reply(await assemble(chunks))

    async def embed(
        self, texts: Sequence[str], *, kind: Literal["query", "passage"], run: str, timeout: float
    ) -> list[list[float]]:
        """A vector for each text."""
        request = EmbeddingRequest(list(texts), EMBEDDING_MODEL, input_type=kind)
        found = await self._gateway.embed(request, self._caller, run_id=run, timeout=timeout)
        return [cast("list[float]", vector.embedding) for vector in found.data]

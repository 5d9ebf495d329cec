"""The host's surroundings in the server: the ledger and the gateway, without a detour over the wire."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Literal, cast

from llmagentos.agents.ledger import SERVER, Ledger
from llmagentos.agents.model import Prompt, Reply
from llmagentos.agents.wire import EMBEDDING_MODEL, chat_request, reply
from llmagentos.api.llm import EmbeddingRequest, Usage, Waits
from llmagentos.api.runs import Claim, Data, RunEvent
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
        pieces: list[str] = []
        usage, waits, cut = Usage(), Waits(0.0, None), False
        chunks = self._gateway.chat(
            chat_request(prompt), self._caller, run_id=run, purpose=prompt.gate_purpose, timeout=timeout
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                pieces.append(chunk.text)
                if chunk.choices and chunk.choices[0].finish_reason == "length":
                    cut = True
                if isinstance(chunk.usage, Usage):
                    usage = chunk.usage
                if isinstance(chunk.waits, Waits):
                    waits = chunk.waits
        return reply("".join(pieces), usage, waits, cut=cut)

    async def embed(
        self, texts: Sequence[str], *, kind: Literal["query", "passage"], run: str, timeout: float
    ) -> list[list[float]]:
        """A vector for each text."""
        request = EmbeddingRequest(list(texts), EMBEDDING_MODEL, input_type=kind)
        found = await self._gateway.embed(request, self._caller, run_id=run, timeout=timeout)
        return [cast("list[float]", vector.embedding) for vector in found.data]

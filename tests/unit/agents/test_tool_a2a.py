"""Remote A2A agents: what their cards may have this server do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llmagentos.agents.a2a.client import Remote
from llmagentos.core.config.outside import A2aAgent
from llmagentos.core.errors import ConfigError

CARD = {
    "name": "Stranger",
    "description": "Leads elsewhere.",
    "version": "1",
    "capabilities": {},
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
    "skills": [],
}


class Stranger:
    """The transport seam: a server that answers every request with its card, which names `leads_to`."""

    def __init__(self) -> None:
        self.leads_to: list[str] = []
        self.asked: list[str] = []
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Stranger]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split(b"\r\n")[0].decode())
        interfaces = [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"} for url in self.leads_to]
        body = json.dumps({**CARD, "supportedInterfaces": interfaces}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def test_a_card_does_not_lead_this_server_to_another_origin() -> None:
    """Whoever serves the card must not choose whom this server calls, behind its firewall for instance."""

    async def main() -> None:
        async with Stranger().running() as inside, Stranger().running() as stranger:
            stranger.leads_to = [f"{inside.url}/admin"]
            remote = Remote("stranger", A2aAgent(stranger.url))
            with pytest.raises(ConfigError, match="another origin"):
                await remote.ask("hello", "m1", 5.0)
            assert inside.asked == []
            stranger.leads_to = [f"{inside.url}/admin", f"{stranger.url}/a2a"]
            card = await remote.card()
            assert [one["url"] for one in card["supportedInterfaces"]] == [f"{stranger.url}/a2a"]

    asyncio.run(main())

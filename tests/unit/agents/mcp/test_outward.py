"""The server as an MCP server, asked by the package's own client without a network between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.types import Receive, Scope, Send

from llmagentos.agents.door import Door
from llmagentos.agents.mcp.outward import Outward
from llmagentos.agents.records import Agent
from llmagentos.security.identity import Identity, Kind
from support.house import House, house

pytestmark = pytest.mark.anyio
ADA = Identity(Kind.ADMIN, "ada")


class Asked:
    """What was audited: tools and statuses."""

    def __init__(self) -> None:
        self.audited: list[tuple[str, int]] = []

    async def audit(self, _: Identity, tool: str, status: int) -> None:
        await asyncio.sleep(0.01)  # as storage takes a while
        self.audited.append((tool, status))


@asynccontextmanager
async def client(h: House, asked: Asked, **more: Any) -> AsyncIterator[Client]:
    """A client of a server whose agent nobody carries on."""

    async def agent_of(name: str) -> Agent:
        found = await h.agents.current(name)
        assert found is not None
        return found

    async def all_agents() -> list[Agent]:
        return [await agent_of("support")]

    async def call(*_: Any) -> Any:
        raise AssertionError

    outward = Outward(Door(h.ledger, h.control, agent_of, all_agents), list, call, "1", asked.audit, **more)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await outward.answer(scope, receive, send, ADA)

    async with (
        outward.serving(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), timeout=30) as http,
        Client(streamable_http_client("http://127.0.0.1/mcp", http_client=http)) as made,
    ):
        yield made


async def test_a_run_that_takes_too_long_goes_on_and_the_client_is_told_its_id(tmp_path: Path) -> None:
    asked = Asked()
    async with asyncio.timeout(40), house(tmp_path) as h, client(h, asked, call_s=0.2) as it:
        answer = await it.call_tool("ask_support", {"request": "hello"})
        (run,) = await h.ledger.newest(ended=False)
        told = f"support has not answered within 0.2 s: its run {run.id} goes on (`llmctl trace {run.id}`)"
        assert (answer.is_error, answer.content[0].text) == (True, told)  # type: ignore[union-attr]
        assert asked.audited == [("ask_support", 504)]

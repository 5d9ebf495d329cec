"""Remote A2A agents: what their cards may have this server do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llmagentos.agents import tool_a2a
from llmagentos.agents.a2a.client import Remote
from llmagentos.agents.tool_a2a import A2aTools
from llmagentos.agents.tools import CalledBy, OutcomeUnknown
from llmagentos.api.agents import ToolUse
from llmagentos.core.clock import SystemClock
from llmagentos.core.config.outside import A2aAgent
from llmagentos.core.errors import ConfigError
from llmagentos.storage.database import Database
from llmagentos.storage.remote_tasks import RemoteTasks
from support.remote_agent import CARD, RemoteAgent
from support.server import eventually

PATIENCE_S = 40.0


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

    async def begun(task: str) -> None:
        raise AssertionError(f"{task} was begun")

    async def main() -> None:
        async with Stranger().running() as inside, Stranger().running() as stranger:
            stranger.leads_to = [f"{inside.url}/admin"]
            remote = Remote("stranger", A2aAgent(stranger.url))
            with pytest.raises(ConfigError, match="another origin"):
                await remote.ask("hello", "m1", 5.0, begun)
            assert inside.asked == []
            stranger.leads_to = [f"{inside.url}/admin", f"{stranger.url}/a2a"]
            card = await remote.card()
            assert [one["url"] for one in card["supportedInterfaces"]] == [f"{stranger.url}/a2a"]

    asyncio.run(main())


@pytest.mark.anyio
async def test_a_call_that_was_interrupted_goes_on_with_its_task(tmp_path: Path) -> None:
    """In another process, with an agent that would begin another task, and that is away for a moment."""
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.create_all()
    async with asyncio.timeout(PATIENCE_S), RemoteAgent().running() as remote:
        use = ToolUse(a2a=remote.url, name="remote")

        async def call(by: CalledBy) -> Any:
            tasks = RemoteTasks(database, SystemClock())
            (tool,) = await A2aTools({}, SystemClock(), tasks).tools(use)
            return await tool.invoke({"request": "work"}, 60.0, by)

        lost = asyncio.create_task(call(CalledBy("run1", "call-1")))
        await eventually(lambda: remote.looks)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        remote.away = 2
        remote.done.set()
        assert await call(CalledBy("run1", "call-1", again=True)) == "task-1 is done"
        assert remote.begun == ["work"]
        assert await call(CalledBy("run1", "call-2")) == "task-2 is done"
    await database.aclose()


@pytest.mark.anyio
async def test_an_agent_that_is_away_for_a_while_keeps_its_tool_and_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its card, which is asked for again from time to time, is one of the things that are away."""
    monkeypatch.setattr(tool_a2a, "FRESH_S", 0.0)
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.create_all()
    async with asyncio.timeout(PATIENCE_S), RemoteAgent().running() as remote:
        tools = A2aTools({}, SystemClock(), RemoteTasks(database, SystemClock()))
        use = ToolUse(a2a=remote.url, name="remote")
        (tool,) = await tools.tools(use)
        lost = asyncio.create_task(tool.invoke({"request": "work"}, 60.0, CalledBy("run1", "call-1")))
        await eventually(lambda: remote.looks)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        remote.gone, remote.refused = True, 0
        (tool,) = await tools.tools(use)
        again = asyncio.create_task(tool.invoke({"request": "work"}, 60.0, CalledBy("run1", "call-1", again=True)))
        await eventually(lambda: remote.refused > 2)
        remote.gone = False
        remote.done.set()
        assert await again == "task-1 is done"
    await database.aclose()


@pytest.mark.anyio
async def test_a_message_that_may_have_arrived_is_not_sent_again_by_itself(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.create_all()
    async with asyncio.timeout(PATIENCE_S), RemoteAgent().running() as remote:

        async def call(by: CalledBy, **more: Any) -> Any:
            tools = A2aTools({}, SystemClock(), RemoteTasks(database, SystemClock()))
            (tool,) = await tools.tools(ToolUse(a2a=remote.url, name="remote", **more))
            return await tool.invoke({"request": "work"}, 60.0, by)

        remote.mute = True
        lost = asyncio.create_task(call(CalledBy("run1", "call-1")))
        await eventually(lambda: remote.begun)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        remote.mute = False
        remote.done.set()
        with pytest.raises(OutcomeUnknown, match="the call of remote was interrupted"):
            await call(CalledBy("run1", "call-1", again=True))
        assert remote.begun == ["work"]
        assert await call(CalledBy("run1", "call-1", again=True), idempotent=True) == "task-2 is done"
    await database.aclose()

"""`llmctl services --wait` waits for the service, also over a restart of the server."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from llmagentos.api.client import ApiClient
from llmagentos.api.http import ConnectFailed
from llmagentos.api.registry import Instance, ServiceSpec, Snapshot
from llmagentos.cli.services import _waited
from llmagentos.core.errors import DeadlineExceeded
from support.listening import listening

UP = Instance("i1", "m", "1", "http://127.0.0.1:1", [ServiceSpec("s")], [], "up", 0.0)


@pytest.mark.anyio
async def test_the_server_may_go_away_meanwhile() -> None:
    snapshots = [Snapshot([]), None, Snapshot([UP])]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if (snapshot := snapshots.pop(0)) is not None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            writer.write(b"event: snapshot\ndata: " + msgspec.json.encode(snapshot) + b"\n\n")
            await writer.drain()
        writer.close()

    async with listening(serve) as url, ApiClient(url, "t") as client:
        assert await _waited(client, "s", 40) == [UP]
    assert snapshots == []


@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_said_at_once() -> None:
    async with listening(lambda *_: asyncio.sleep(0)) as url:
        pass
    async with ApiClient(url, "t") as client:
        with pytest.raises(ConnectFailed):
            await _waited(client, "s", 40)


@pytest.mark.anyio
async def test_one_that_does_not_come_is_not_waited_for_for_ever() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        writer.write(b"event: snapshot\ndata: " + msgspec.json.encode(Snapshot([UP])) + b"\n\n")
        try:
            await asyncio.Event().wait()
        finally:
            writer.close()

    async with listening(serve) as url, ApiClient(url, "t") as client:
        with pytest.raises(DeadlineExceeded, match=r"no instance of 'ss' came up within 0\.3 s"):
            await _waited(client, "ss", 0.3)

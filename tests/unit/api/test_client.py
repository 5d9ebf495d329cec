"""The client of the API asks for what it is told to, whatever language names are in."""

from __future__ import annotations

import asyncio

import pytest

from llmagentos.api.client import ApiClient
from support.listening import listening


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/nodes/web1", "/api/v1/nodes/web1"),
        ("/api/v1/nodes/\u8282\u70b9", "/api/v1/nodes/%E8%8A%82%E7%82%B9"),
        ("/api/v1/nodes/a\udcff", "/api/v1/nodes/a%FF"),  # an argument that is not UTF-8
        ("/api/v1/nodes/a b", "/api/v1/nodes/a%20b"),
        ("/api/v1/nodes/a\r\nHost: b", "/api/v1/nodes/a%0D%0AHost:%20b"),
        ("/api/v1/nodes/a#b", "/api/v1/nodes/a%23b"),
        ("/api/v1/nodes/a%20b?c=%C3%A9&d=1", "/api/v1/nodes/a%20b?c=%C3%A9&d=1"),
    ],
)
async def test_a_name_of_any_kind_is_asked_for(path: str, target: str) -> None:
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0])
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    async with listening(serve) as url, ApiClient(url, "t") as client:
        await client.delete(path)
        await client.get(path, type(None))
        async with client.events(path):
            pass
    assert asked == [f"{method} {target} HTTP/1.1" for method in ("DELETE", "GET", "GET")]

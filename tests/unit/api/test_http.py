"""A kept connection answers again, however fast the answer before came."""

from __future__ import annotations

import asyncio

import pytest

from llmagentos.api.http import HttpClient

pytestmark = pytest.mark.anyio
PIECES = 2000


class Burst(asyncio.Protocol):
    """Answers each request with many chunks at once."""

    connections = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).connections += 1
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        self._transport.write(head + b"1\r\nx\r\n" * PIECES + b"0\r\n\r\n")


@pytest.mark.parametrize("whole", [True, False])
async def test_a_burst_leaves_the_connection_able_to_hear(whole: bool) -> None:
    Burst.connections = 0
    server = await asyncio.get_running_loop().create_server(Burst, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    http = HttpClient(max_idle=1)
    for _ in range(3):
        async with http.stream("GET", origin, "/", timeout=40) as response:
            if whole:
                assert len(await response.read()) == PIECES
            else:
                await anext(response.iter_bytes())
        await asyncio.sleep(0)
    assert Burst.connections == (1 if whole else 3)
    await http.aclose()
    server.close()

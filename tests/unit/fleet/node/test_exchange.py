"""What is written for a job ends before whoever goes on with it begins."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Inventory, NodeJob
from llmagentos.fleet.node import exchange
from llmagentos.fleet.node.exchange import Exchange
from llmagentos.fleet.node.fetched import FetchedFiles
from llmagentos.fleet.node.jobdir import JobDirectory
from support.listening import listening

HEARD = b'{"shares":[{"id":1,"node":"b","share":{"kind":"x"}}],"gone":{}}'


def answering(body: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    return serve


def test_a_line_of_another_node_is_written_before_the_exchange_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, write = threading.Event(), threading.Event(), exchange._write

    def slow(path: Path, *args: object) -> None:
        begun.set()
        go_on.wait(40)
        write(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(exchange, "_write", slow)

    async def main() -> None:
        directory = JobDirectory(tmp_path)
        job = NodeJob(1, 1, "a", "0" * 64, "site.yml", Inventory())
        async with listening(answering(HEARD)) as url, ApiClient(url, "token") as client:
            work = asyncio.create_task(Exchange(client, job, directory, FetchedFiles(client, job, directory)).run())
            assert await asyncio.to_thread(begun.wait, 40)
            work.cancel()
            asyncio.get_running_loop().call_later(0.2, go_on.set)
            await asyncio.gather(work, return_exceptions=True)
            assert directory.peers.exists(), "it would have been written after the next one had looked"
        assert directory.peers.read_bytes().count(b"\n") == 1

    asyncio.run(main())

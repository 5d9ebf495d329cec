"""A job whose lease is lost: what it does on the disk is over before it is taken up again."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from llmagentos.api import jobs
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Inventory, NodeJob
from llmagentos.core.errors import Conflict
from llmagentos.fleet.node import bundles
from llmagentos.fleet.node.jobdir import JobDirectory
from llmagentos.fleet.node.work import Work
from support.listening import listening


def test_what_a_lost_job_does_on_disk_is_over_when_it_is_claimed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        go_on.wait(40)
        over.set()

    monkeypatch.setattr(bundles, "unpack", slow)
    monkeypatch.setattr(jobs, "RENEW_S", 0.05)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/lease " in head:
            while not begun.is_set():
                await asyncio.sleep(0.01)
            body = b'{"type":"urn:llmagentos:problem:lease_lost","title":"lease lost","status":409,"detail":"over"}'
            answer = b"HTTP/1.1 409 Conflict\r\nContent-Type: application/problem+json\r\n"
        else:
            body, answer = b"x", b"HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\n"
        writer.write(answer + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async def main() -> None:
        job = NodeJob(1, 1, "a", "0" * 64, "site.yml", Inventory())
        async with listening(serve) as url, ApiClient(url, "token") as client:
            work = Work(client, job, JobDirectory(tmp_path / "1"), home=str(tmp_path), variables={})
            asyncio.get_running_loop().call_later(1.0, go_on.set)
            with pytest.raises(Conflict):
                await work.run(30.0)
            assert over.is_set(), "the next attempt would unpack beside this thread"

    try:
        asyncio.run(main())
    finally:
        go_on.set()

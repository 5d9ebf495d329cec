"""The collector with a server that takes everything, and a disk that does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

from llmagentos.api.client import ApiClient
from llmagentos.api.telemetry import Line
from llmagentos.fleet.node.collect.collector import Collector
from llmagentos.fleet.node.collect.spool import Spool
from support.listening import listening

ANSWER = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    await reader.readexactly(size)
    writer.write(ANSWER)
    await writer.drain()
    writer.close()


def test_what_cannot_be_ticked_off_comes_again_and_nothing_ends(tmp_path: Path) -> None:
    async def main() -> None:
        state, wanted = tmp_path / "state", tmp_path / "collect.d"
        state.mkdir()
        wanted.mkdir()
        Spool(state).put([], [Line(1.0, "app", "one")])
        name = (state / "spool.id").read_text()
        asked = asyncio.Semaphore(0)

        async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await taken(reader, writer)
            asked.release()

        async with listening(counted) as url, ApiClient(url, "token") as client:
            collector = Collector(client, state, wanted)
            (state / "spool.id").unlink()
            (state / "spool.id").mkdir()  # it cannot be written, as on a full disk
            work = asyncio.create_task(collector._send())
            async with asyncio.timeout(40):
                await asked.acquire()
                await asked.acquire()
            assert not work.done()
            (state / "spool.id").rmdir()
            async with asyncio.timeout(40):
                while list(state.glob("*.batch")):
                    await asyncio.sleep(0.02)
            assert (state / "spool.id").read_text().split() == [name.split()[0], "1"]
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    asyncio.run(main())

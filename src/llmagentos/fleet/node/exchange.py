"""Carries what a job's nodes tell each other between the runner's two files and the server.

`shares.jsonl` is the runner's; here it is only read. `peers.jsonl` is written only here, in the server's order,
and says by itself how far it is: so a node agent that was killed goes on where its predecessor stopped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from llmagentos.api import plays
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import NodeJob
from llmagentos.api.plays import Shared
from llmagentos.core.finishing import to_the_end
from llmagentos.fleet.node.fetched import FetchedFiles
from llmagentos.fleet.node.insist import insist
from llmagentos.fleet.node.jobdir import JobDirectory

POLL_S = 0.01
"""How often the runner's shares are looked for: all other nodes wait for them."""


class Exchange:
    """What one job tells the other nodes and hears from them."""

    def __init__(self, client: ApiClient, job: NodeJob, directory: JobDirectory, files: FetchedFiles) -> None:
        self._files = files
        self._client = client
        self._job = job
        self._shares = directory.shares
        self._peers = directory.peers
        self._next_seq: int | None = None
        self._offset = 0
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled. Raises `Conflict` when the lease was lost."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._sending())
                group.create_task(self._hearing())
        except ExceptionGroup as both:
            raise both.exceptions[0] from None

    async def send(self) -> None:
        """Send all that the runner has shared and that the server does not have yet."""
        async with self._lock:
            if self._next_seq is None:
                await self._skip((await self._tell([])).next_seq)
            while batch := await asyncio.to_thread(self._read):
                lines, end = batch
                await self._files.send()  # before the others hear of them
                kept = await self._tell([msgspec.json.decode(line) for line in lines])
                assert self._next_seq is not None
                self._next_seq, self._offset = kept.next_seq, end

    async def _tell(self, shares: list[dict[str, Any]]) -> plays.Kept:
        job, first = self._job, self._next_seq or 1
        return await insist(lambda: plays.share(self._client, job.job, job.fence, first, shares), what="share results")

    async def _skip(self, next_seq: int) -> None:
        """Pass over what an earlier node agent has sent."""
        left = next_seq - 1
        while left > 0 and (batch := await asyncio.to_thread(self._read, left)) is not None:
            lines, self._offset = batch
            left -= len(lines)
        self._next_seq = next_seq

    def _read(self, most: int = plays.MAX_SHARES) -> tuple[list[bytes], int] | None:
        """Whole lines from the offset on, so many as fit into a request, and where they end."""
        with suppress(FileNotFoundError), self._shares.open("rb") as file:
            file.seek(self._offset)
            lines: list[bytes] = []
            size = 0
            for line in file:
                if not line.endswith(b"\n") or len(lines) >= min(most, plays.MAX_SHARES):
                    break
                if lines and size + len(line) > plays.MAX_REQUEST_BYTES:
                    break
                lines.append(line)
                size += len(line)
            if lines:
                return lines, self._offset + size
        return None

    async def _sending(self) -> None:
        while True:
            if self._grown():
                await self.send()
            await asyncio.sleep(POLL_S)

    def _grown(self) -> bool:
        try:
            return self._shares.stat().st_size > self._offset
        except FileNotFoundError:
            return False

    async def _hearing(self) -> None:
        job = self._job
        after, gone = await asyncio.to_thread(_known, self._peers)
        while True:
            heard = await insist(
                lambda: plays.shared(self._client, job.job, job.fence, after=after, gone=len(gone)),  # noqa: B023
                what="hear of the other nodes",
            )
            new = {node: why for node, why in heard.gone.items() if node not in gone}
            for shared in heard.shares:
                if shared.share.get("kind") == "file" and shared.node != job.host:
                    await self._files.bring(str(shared.share.get("digest")))
            if heard.shares or new:
                # To its end: who goes on with this job reads how far the file is, and must not meet a late line.
                await to_the_end(asyncio.to_thread(_write, self._peers, heard, new))
            after = heard.shares[-1].id if heard.shares else after
            gone |= new.keys()


def _write(path: Path, heard: Shared, gone: dict[str, str]) -> None:
    lines = [msgspec.json.encode({"id": s.id, "from": s.node, "share": s.share}) for s in heard.shares]
    lines += [msgspec.json.encode({"gone": node, "why": why}) for node, why in gone.items()]
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        data = b"".join(line + b"\n" for line in lines)
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


def _known(path: Path) -> tuple[int, set[str]]:
    """The last share and the nodes that are gone, as the file says; what is no whole line is cut off."""
    after, gone, end = 0, set(), 0
    for line in _lines(path):
        if not line.endswith(b"\n"):
            os.truncate(path, end)  # whoever reads it waits for the end of the line: it comes again
            break
        end += len(line)
        found = msgspec.json.decode(line)
        if "gone" in found:
            gone.add(found["gone"])
        else:
            after = found["id"]
    return after, gone


def _lines(path: Path) -> Iterator[bytes]:
    with suppress(FileNotFoundError), path.open("rb") as file:
        yield from file

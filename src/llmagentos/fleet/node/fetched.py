"""Sends what a job's tasks fetched to the server: `fetched.jsonl` and the bytes beside it, which the runner writes."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path

import msgspec

from llmagentos.api import job_files
from llmagentos.api.client import ApiClient
from llmagentos.api.job_files import Fetched
from llmagentos.api.jobs import NodeJob
from llmagentos.core import log
from llmagentos.core.errors import CallerError, Conflict, NotFound
from llmagentos.core.files import write_whole
from llmagentos.fleet.node.insist import insist
from llmagentos.fleet.node.jobdir import JobDirectory

_DIGEST = re.compile(r"[0-9a-f]{64}")
_log = log.get(__name__)


class FetchedFiles:
    """Those of one job. Sent again after a restart of the node agent: the server keeps one for each place."""

    def __init__(self, client: ApiClient, job: NodeJob, directory: JobDirectory) -> None:
        self._client = client
        self._job = job
        self._list = directory.root / "fetched.jsonl"
        self._store = directory.root / "fetched"
        self._offset = 0
        self._lock = asyncio.Lock()
        self.refused: str | None = None
        """What the server said of the first one that it does not keep."""

    async def send(self) -> None:
        """All that were fetched since the last call. Raises `Conflict` when the lease was lost."""
        async with self._lock:
            for line in await asyncio.to_thread(self._new):
                await self._one(msgspec.json.decode(line, type=Fetched))
                self._offset += len(line)

    async def _one(self, fetched: Fetched) -> None:
        job = self._job
        try:
            content = await asyncio.to_thread((self._store / fetched.digest).read_bytes)
            send = lambda: job_files.send(self._client, job.job, job.fence, fetched, content)  # noqa: E731
            await insist(send, what="send a fetched file")
        except (Conflict, NotFound):
            raise
        except (CallerError, OSError) as error:
            _log.error("fetched file not kept", path=fetched.path, error=str(error))
            self.refused = self.refused or f"{fetched.path} was fetched, but it is not kept: {error}"

    async def bring(self, digest: str) -> None:
        """Put a file of another node beside this node's own. What cannot be had the playbook will miss."""
        job, path = self._job, self._store / digest
        if not _DIGEST.fullmatch(digest) or await asyncio.to_thread(path.exists):
            return
        get = lambda: job_files.of_other_node(self._client, job.job, job.fence, digest)  # noqa: E731
        try:
            content = await insist(get, what="get another node's file")
            if hashlib.sha256(content).hexdigest() == digest:
                await asyncio.to_thread(write_whole, path, content)
        except Conflict:
            raise
        except (CallerError, OSError) as error:
            _log.error("another node's file did not come", digest=digest, error=str(error))

    def _new(self) -> list[bytes]:
        return whole_lines(self._list, self._offset)


def whole_lines(path: Path, offset: int) -> list[bytes]:
    """The lines of a growing file from `offset` on that are written to their end."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return [line for line in file.readlines() if line.endswith(b"\n")]
    except FileNotFoundError:
        return []

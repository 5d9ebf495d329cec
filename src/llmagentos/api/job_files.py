"""Files that a job's tasks fetched from its nodes, on the wire: sent by the nodes, kept for whoever asked for the job.

A file is told by where its task would have it, `path`: relative to the playbook's directory, or absolute. What a
node says of a path is data: whoever writes a file decides whether the playbook meant that place
(`fleet.playbooks.fetches`).
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient

MAX_FILE_BYTES = 32 * 1024 * 1024
"""Of one file."""
MAX_JOB_BYTES = 512 * 1024 * 1024
"""Of all files of one job."""
MAX_FILES = 10_000
"""Of one job."""
MAX_PATH = 2000
"""Characters of a path."""
TIMEOUT_S = 300.0
FETCHED_BEFORE = "llmagentos_fetched_before"
"""A job's variable: of the files that whoever asks for it has at absolute destinations of its fetches, the SHA-256s by
path. Where it says nothing of a file, that counts as changed."""

Path = Annotated[str, Meta(min_length=1, max_length=MAX_PATH, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Fetched(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node tells of a file."""

    path: Path
    source: Path
    """Where it lies on the node."""
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of its bytes, hexadecimal."""
    size: Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)]


class JobFile(msgspec.Struct, frozen=True):
    """A file that a job fetched, the newest one for its node and path."""

    id: int
    node: str
    path: str
    source: str
    digest: str
    size: int
    at: float


_JOBS = "/api/v1/jobs"
_QUEUE = "/api/v1/nodes/self/queue"


async def listing(client: ApiClient, job: int) -> list[JobFile]:
    """The files of a job, in the order in which they came."""
    return await client.get(f"{_JOBS}/{job}/files", list[JobFile])


async def content(client: ApiClient, job: int, file: int) -> bytes:
    """The bytes of one file. Raises `NotFound` once it is no longer kept."""
    return await client.download(f"{_JOBS}/{job}/files/{file}", timeout=TIMEOUT_S)


async def of_other_node(client: ApiClient, job: int, fence: int, digest: str) -> bytes:
    """A node's: the bytes of a file that another node of the job it holds has fetched. Raises `NotFound`."""
    return await client.download(f"{_QUEUE}/{job}/files/{digest}?fence={fence}", timeout=TIMEOUT_S)


async def send(client: ApiClient, job: int, fence: int, fetched: Fetched, content: bytes) -> None:
    """A node's: keep a file for the job it holds. Raises `Conflict` on an old fence, `TooLarge`."""
    query = urlencode({"fence": fence, "path": fetched.path, "source": fetched.source})
    path = f"{_QUEUE}/{job}/files/{fetched.digest}?{query}"
    await client.upload(path, content, type(None), timeout=TIMEOUT_S)

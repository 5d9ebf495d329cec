"""Jobs whose plays span nodes, on the wire: who takes part, and what the nodes tell each other.

Every node runs the whole playbook and executes the tasks of its own host. What they came to it shares
with the others through the server, which puts all shares of a job into one order. A node numbers its own
shares from 1; sending them again changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient

MAX_SHARES = 200
"""Shares in one request."""
MAX_SHARE_BYTES = 2 * 1024 * 1024
"""One share as JSON."""
MAX_REQUEST_BYTES = 3 * 1024 * 1024
"""All shares of one request as JSON: within what the server takes as a body."""
POLL_S = 25.0
"""Longest wait for shares."""


class Span(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who takes part in a job whose plays span nodes."""

    nodes: list[str]
    """All of them, also those that only get tasks delegated."""
    lead: str
    """The node that stands in for the machine where ansible-playbook would be run: `localhost`."""
    forks: int
    """Hosts that execute a task at the same time."""
    limit: str | None = None
    """The job's own limit, as a pattern."""
    files: bool = False
    """Files that one node fetches are used by the others."""
    reasons: list[str] = []
    """Why, as file:line: what."""


class Shares(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node tells the others of a claimed job; `first_seq` is the number of the first one."""

    fence: int
    first_seq: Annotated[int, Meta(ge=1)]
    shares: Annotated[list[dict[str, Any]], Meta(max_length=MAX_SHARES)]


class Kept(msgspec.Struct, frozen=True):
    """The server has a node's own shares up to `next_seq`."""

    next_seq: int


class Share(msgspec.Struct, frozen=True):
    """What one node told, as all others of the job get it, in the order of `id`."""

    id: int
    node: str
    share: dict[str, Any]


class Shared(msgspec.Struct, frozen=True):
    """Shares after those that were known, and, once there are no more, which nodes have ended and why."""

    shares: list[Share]
    gone: dict[str, str]


_QUEUE = "/api/v1/nodes/self/queue"


async def share(client: ApiClient, job: int, fence: int, first_seq: int, shares: list[dict[str, Any]]) -> Kept:
    """Tell the other nodes; what the server has is skipped. Raises `Conflict` on an old fence."""
    return await client.post(f"{_QUEUE}/{job}/shares", Shares(fence, first_seq, shares), Kept)


async def shared(client: ApiClient, job: int, fence: int, *, after: int, gone: int, wait: float = POLL_S) -> Shared:
    """What was shared after the share `after`; waits for more while that and `gone` ended nodes is all there is."""
    query = {"fence": fence, "after": after, "gone": gone, "wait": wait}
    return await client.get(f"{_QUEUE}/{job}/shares", Shared, query=query, timeout=wait + 15)

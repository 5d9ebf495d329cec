"""Nodes on the wire: joining, facts, heartbeats, what people see of them, and the client's calls.

Times are seconds since the epoch, UTC; sizes are bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient

HEARTBEAT_S = 10.0
"""How often a node says that it is there."""
AWAY_S = 30.0
"""A node that was silent for this long is away."""

NodeName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Word = Annotated[str, Meta(max_length=255)]

NodeState = Literal["ready", "away"]
UnitState = Literal["starting", "running", "restarting", "stopped", "failed"]


class Join(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine that wants to be a node. `name` has to be new."""

    name: NodeName
    hostname: Word
    version: Word


class Joined(msgspec.Struct, frozen=True):
    """The node's own token: told this once."""

    name: str
    token: str


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a machine is; sent at start and when it changes."""

    hostname: Word
    version: Word
    """Of the node agent."""
    os: Word = ""
    """e.g. `Debian GNU/Linux 12 (bookworm)`."""
    kernel: Word = ""
    architecture: Word = ""
    cpus: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    """Of the file system that holds the node agent's state."""
    python: Word = ""
    ansible: Word = ""
    addresses: Annotated[list[Word], Meta(max_length=64)] = []
    boot: float = 0.0
    user: Word = ""
    extra: Annotated[dict[str, Word], Meta(max_length=64)] = {}


class ModuleUnit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A module that the node agent keeps running."""

    name: Word
    state: UnitState
    pid: int | None = None
    restarts: int = 0
    started: float | None = None
    message: Word | None = None
    """Why it is not running."""


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A sign of life."""

    load: Annotated[list[float], Meta(max_length=3)] = []
    """Load averages over 1, 5 and 15 minutes."""
    memory_available_bytes: int = 0
    disk_free_bytes: int = 0
    modules: Annotated[list[ModuleUnit], Meta(max_length=256)] = []
    time: float = 0.0
    """The node's wall clock."""


class Beat(msgspec.Struct, frozen=True):
    """The answer: when to send the next one, and the server's wall clock."""

    interval_s: float
    time: float


class NodeSummary(msgspec.Struct, frozen=True):
    """A node in a list."""

    name: str
    state: NodeState
    joined: float
    seen: float
    """Its last heartbeat."""
    os: str
    cpus: int
    memory_bytes: int
    load: list[float]
    queue: int
    """Jobs that are queued or running on it."""
    modules: list[ModuleUnit]
    version: str


class Node(msgspec.Struct, frozen=True):
    """One node in full."""

    summary: NodeSummary
    facts: Facts
    heartbeat: Heartbeat
    module_names: list[str]
    """Modules that it got tokens for."""
    clock_offset_s: float = 0.0
    """Its wall clock against the server's; positive when it is ahead."""


class ModuleToken(msgspec.Struct, frozen=True):
    """What a module on this node identifies itself with."""

    token: str


async def join(client: ApiClient, request: Join) -> Joined:
    """Become a node, with a one-time join token. Raises `Conflict` when the name is taken."""
    return await client.post("/api/v1/nodes/join", request, Joined)


async def put_facts(client: ApiClient, facts: Facts) -> None:
    """Tell the node's facts."""
    await client.put("/api/v1/nodes/self/facts", facts, type(None))


async def beat(client: ApiClient, heartbeat: Heartbeat) -> Beat:
    """Tell that the node is there. Raises `Unauthenticated` once it was removed."""
    return await client.put("/api/v1/nodes/self/heartbeat", heartbeat, Beat)


async def module_token(client: ApiClient, module: str) -> str:
    """A token for a module on this node; it lives until the node asks for newer ones or is removed."""
    made: Any = await client.post(f"/api/v1/nodes/self/modules/{module}/token", {}, ModuleToken)
    return str(made.token)


async def listing(client: ApiClient) -> list[NodeSummary]:
    """All nodes by name."""
    return await client.get("/api/v1/nodes", list[NodeSummary])


async def show(client: ApiClient, name: str) -> Node:
    """One node."""
    return await client.get(f"/api/v1/nodes/{name}", Node)


async def remove(client: ApiClient, name: str) -> None:
    """Take a node out: its tokens end, its queued jobs are cancelled."""
    await client.delete(f"/api/v1/nodes/{name}")

"""Nodes on the wire: joining, facts, heartbeats, what people see of them, and the client's calls.

Times are seconds since the epoch, UTC; sizes are bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient
from llmagentos.core.errors import Conflict, Forbidden, Unauthenticated

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
NodeName = Annotated[str, Meta(pattern=NAME)]
Word = Annotated[str, Meta(max_length=255)]

Label = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
LabelValue = Annotated[str, Meta(max_length=128, pattern=r"^[^\n,]*$")]
ModulePattern = Annotated[str, Meta(pattern=r"^[A-Za-z0-9*?._-]{1,63}$")]
"""A module's name; `*` and `?` stand for any characters and any one."""

NodeState = Literal["ready", "away", "revoked"]
Availability = Literal["open", "cordoned", "draining", "drained"]
UnitState = Literal["starting", "running", "restarting", "stopped", "failed"]


class Cloned(Conflict):
    """Another machine answers under this identity now; `details["retry_after"]` is when it may be tried again."""

    code = "node_cloned"


class Superseded(Unauthenticated):
    """A machine with this identity has gone further than this one: this one is a copy, or was set back to one."""

    code = "node_superseded"


class NodeRevoked(Unauthenticated):
    """The node's identity was revoked."""

    code = "node_revoked"


class NotAllowed(Forbidden):
    """The node may not have a token for this module."""

    code = "module_not_allowed"


class Join(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine that wants to be a node. `name` has to be new, or that of a node that was revoked."""

    name: NodeName
    hostname: Word
    version: Word
    csr: Annotated[str, Meta(max_length=8192)]
    """A certificate request (PKCS #10, PEM) for the node's own key, EC P-256."""
    place: Annotated[str, Meta(max_length=64)] = ""
    """A digest of the machine, its start and the state directory: tells two copies of one identity apart."""


class Joined(msgspec.Struct, frozen=True):
    """Who the machine is now: its certificate, and a first token."""

    name: str
    token: str
    expires_in: float
    """Seconds that the token is good for."""
    certificate: str
    """PEM; `renew_certificate` gets the next one."""


class NodeToken(msgspec.Struct, frozen=True):
    """A node's token, good for `expires_in` seconds."""

    token: str
    expires_in: float


class Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for a certificate for a new key."""

    csr: Annotated[str, Meta(max_length=8192)]


class Renewed(msgspec.Struct, frozen=True):
    """The new certificate, PEM. The old one counts until this one is used."""

    certificate: str


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a machine is; sent at start and when it changes."""

    hostname: Word
    version: Word
    """Of the node agent."""
    os: Word = ""
    """e.g. `Debian GNU/Linux 12 (bookworm)`."""
    os_id: Word = ""
    """e.g. `debian` (os-release(5): ID)."""
    os_like: Word = ""
    """What it derives from, e.g. `debian` for Ubuntu (os-release(5): ID_LIKE)."""
    os_version: Word = ""
    """e.g. `12` (os-release(5): VERSION_ID)."""
    kernel: Word = ""
    architecture: Word = ""
    cpus: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    """Of the file system that holds the node agent's state."""
    python: Word = ""
    ansible: Word = ""
    gpus: Annotated[list[Word], Meta(max_length=64)] = []
    """Accelerators, by name."""
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


class Upgrade(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which version a node agent shall become, and how that stands."""

    version: str
    digest: str
    """SHA-256 of the wheel, hexadecimal."""
    state: Literal["wanted", "done", "failed"] = "wanted"
    message: Word = ""
    at: float = 0.0


class Beat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer: when to send the next one, the server's wall clock, and what the node shall do."""

    interval_s: float
    time: float
    drain: bool = False
    """Stop the modules, in the reverse order of their start."""
    upgrade: Upgrade | None = None


class UpgradeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which version a node shall become: a stored wheel by its SHA-256; without one that of the server."""

    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None = None


class WheelInfo(msgspec.Struct, frozen=True):
    """A stored wheel."""

    digest: str
    version: str


class UpgradeReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an upgrade of the calling node's agent went."""

    digest: str
    state: Literal["done", "failed"]
    message: Word = ""


class Trouble(msgspec.Struct, frozen=True):
    """What was wrong with a node's identity when it was last used wrongly."""

    at: float
    message: str


class Grant(msgspec.Struct, frozen=True):
    """Modules that a node may have tokens for: a name with `*` and `?`, and who said so."""

    pattern: str
    by: str
    at: float


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
    availability: Availability = "open"
    """Whether it takes new jobs; a draining one also stops its modules, a drained one has."""
    labels: dict[str, str] = {}
    groups: list[str] = []
    """Of inventories without `-i`: from facts (`os_debian`) and labels (`label_env_prod`)."""
    trouble: Trouble | None = None
    gpus: int = 0


class CertificateInfo(msgspec.Struct, frozen=True):
    """A node's newest certificate."""

    serial: str
    thumbprint: str
    """SHA-256 of its DER, hexadecimal."""
    issued: float
    expires: float
    revoked: float | None = None


class Node(msgspec.Struct, frozen=True):
    """One node in full."""

    summary: NodeSummary
    facts: Facts
    heartbeat: Heartbeat
    module_names: list[str]
    """Modules that it got tokens for."""
    clock_offset_s: float = 0.0
    """Its wall clock against the server's; positive when it is ahead."""
    certificate: CertificateInfo | None = None
    allowed: list[Grant] = []
    """Which modules it may have tokens for."""
    upgrade: Upgrade | None = None


class Labels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Labels to set; None takes one away."""

    set: Annotated[dict[Label, LabelValue | None], Meta(max_length=64)]


class ModuleToken(msgspec.Struct, frozen=True):
    """What a module on this node identifies itself with."""

    token: str


# --- the client's calls: a node ---------------------------------------------------------------

_SELF = "/api/v1/nodes/self"


async def join(client: ApiClient, request: Join) -> Joined:
    """Become a node, with a join token. Raises `Conflict` when the name is taken."""
    return await client.post("/api/v1/nodes/join", request, Joined)


async def exchange(client: ApiClient) -> NodeToken:
    """A token for the assertion that `client` holds. Raises `Cloned`, `Superseded`, `NodeRevoked`."""
    return await client.post(f"{_SELF}/token", {}, NodeToken)


async def renew_certificate(client: ApiClient, csr: str) -> str:
    """The certificate (PEM) for a new key of the calling node."""
    return (await client.post(f"{_SELF}/certificate", Renewal(csr), Renewed)).certificate


async def put_facts(client: ApiClient, facts: Facts) -> None:
    """Tell the node's facts."""
    await client.put(f"{_SELF}/facts", facts, type(None))


async def beat(client: ApiClient, heartbeat: Heartbeat) -> Beat:
    """Tell that the node is there. Raises `Unauthenticated` once it was removed."""
    return await client.put(f"{_SELF}/heartbeat", heartbeat, Beat)


async def module_token(client: ApiClient, module: str) -> str:
    """A token for a module on this node; it lives until the node asks for newer ones or is removed.

    Raises `NotAllowed` when nobody said that this module may run on this node.
    """
    made: Any = await client.post(f"{_SELF}/modules/{module}/token", {}, ModuleToken)
    return str(made.token)


async def wheel(client: ApiClient, digest: str, *, timeout: float = 300.0) -> bytes:
    """The package that the calling node's agent shall become."""
    return await client.download(f"{_SELF}/wheels/{digest}", timeout=timeout)


async def report_upgrade(client: ApiClient, report: UpgradeReport) -> None:
    """Tell how the upgrade went."""
    await client.put(f"{_SELF}/upgrade", report, type(None))


# --- the client's calls: people ---------------------------------------------------------------


async def listing(client: ApiClient, *, filter: str | None = None) -> list[NodeSummary]:
    """All nodes by name, or those that an expression such as `os=debian and mem>4GiB` matches."""
    return await client.get("/api/v1/nodes", list[NodeSummary], query={"filter": filter})


async def show(client: ApiClient, name: str) -> Node:
    """One node."""
    return await client.get(f"/api/v1/nodes/{name}", Node)


async def remove(client: ApiClient, name: str) -> None:
    """Take a node out: its tokens end, its queued jobs are cancelled."""
    await client.delete(f"/api/v1/nodes/{name}")


async def act(client: ApiClient, name: str, action: Literal["cordon", "uncordon", "drain", "revoke"]) -> NodeSummary:
    """Change whether the node takes jobs, or end its identity."""
    return await client.post(f"/api/v1/nodes/{name}/{action}", {}, NodeSummary)


async def label(client: ApiClient, name: str, labels: dict[str, str | None]) -> NodeSummary:
    """Set labels; None takes one away."""
    return await client.put(f"/api/v1/nodes/{name}/labels", Labels(labels), NodeSummary)


async def upload_wheel(client: ApiClient, digest: str, content: bytes, *, timeout: float = 120.0) -> WheelInfo:
    """Store a version of the package. Raises `InvalidInput` for what is none."""
    return await client.upload(f"/api/v1/wheels/{digest}", content, WheelInfo, timeout=timeout)


async def upgrade(client: ApiClient, name: str, digest: str | None) -> Upgrade:
    """Have the node's agent become a stored version, or the server's own."""
    return await client.post(f"/api/v1/nodes/{name}/upgrade", UpgradeRequest(digest), Upgrade)


async def allow(client: ApiClient, name: str, pattern: str) -> None:
    """Let the node have tokens for the modules that `pattern` matches."""
    await client.put(f"/api/v1/nodes/{name}/allowed/{quote(pattern, safe='')}", {}, type(None))


async def deny(client: ApiClient, name: str, pattern: str) -> None:
    """Take that back; tokens that modules have end too."""
    await client.delete(f"/api/v1/nodes/{name}/allowed/{quote(pattern, safe='')}")

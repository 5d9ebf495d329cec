"""What hosts of agents speak with the server: runs taken, carried on from their logs, and kept by a lease."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llmagentos.api.agents import AgentName, AgentSpec
from llmagentos.api.client import ApiClient
from llmagentos.api.runs import Data, RunEvent

_CONNECT_S = 90.0
"""MCP servers may have to be started first."""
_GRACE_S = 5.0
"""The server ends a call at its deadline; only when it does not, this side does, so much later."""


class HostedAgent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent that a module hosts; `functions` are the names of its own tools."""

    spec: AgentSpec
    functions: list[str] = []


class ClaimRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A module asks for a run of one of its agents and waits up to `wait` seconds for one."""

    module: AgentName
    agents: Annotated[list[HostedAgent], Meta(min_length=1, max_length=100)]
    holder: Annotated[str, Meta(min_length=1, max_length=100)]
    """This process; another process of the same module is another holder."""
    wait: Annotated[float, Meta(ge=0, le=60)] = 25.0


class Claim(msgspec.Struct, frozen=True):
    """A run to carry on from its log, with the lease's fencing token and length in seconds."""

    run: str
    fence: int
    lease_s: float
    agent: AgentSpec
    events: list[RunEvent]
    caller: str = ""
    """Who asked for the run, or for the run that asked for it."""
    denied: list[str] = []
    """Patterns of names of tools that `caller` may not have called."""
    attached: dict[str, str] = {}
    """What the attachments hold, by digest: text as it is, images as `data:` URLs."""
    values: dict[str, str] = {}
    """What stands behind the placeholders in the events."""


class Claims(msgspec.Struct, frozen=True):
    """The answer to a claim: one run, or none within the wait."""

    claim: Claim | None = None


class Append(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events to add after `after`, the last that the writer knows."""

    fence: int
    after: int
    events: Annotated[list[Data], Meta(min_length=1, max_length=100)]


class LeaseRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Renew the lease with this fencing token, or give it up."""

    fence: int
    release: bool = False


class ToolsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who holds the run's lease asks which tools the server has for it."""

    fence: int


class ToolOffer(msgspec.Struct, frozen=True):
    """A tool that the server calls for a run's host; `entry` is its place in the definition's `tools`."""

    entry: int
    name: str
    doc: str
    parameters: dict[str, Any]
    idempotent: bool
    finds: bool = False
    """Called again it goes on with what the interrupted call began."""


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make the call with this id, which the run's log has as begun, within `timeout` seconds."""

    fence: int
    call_id: Annotated[str, Meta(min_length=1, max_length=200)]
    arguments: dict[str, Any]
    """As the log has them; in place of placeholders what stands behind those."""
    timeout: Annotated[float, Meta(gt=0, le=86_400)]
    again: bool = False
    """Whether it was asked for before, and nobody saw the end."""


class ToolResult(msgspec.Struct, frozen=True):
    """What the tool returned."""

    result: Any = None


class LeaseGranted(msgspec.Struct, frozen=True):
    """The lease lasts this much longer, in seconds."""

    lease_s: float


async def claim(client: ApiClient, request: ClaimRequest) -> Claim | None:
    """Take a run to carry on; None when there was none within the wait."""
    return (await client.post("/api/v1/runs/claim", request, Claims, timeout=request.wait + 15)).claim


async def append(client: ApiClient, run: str, request: Append) -> list[RunEvent]:
    """Add to a run's log. Raises `Conflict` when the lease is lost or the run has ended."""
    return await client.post(f"/api/v1/runs/{run}/events", request, list[RunEvent])


async def lease(client: ApiClient, run: str, request: LeaseRequest) -> LeaseGranted:
    """Renew or give up the lease. Raises `Conflict` when it is lost."""
    return await client.put(f"/api/v1/runs/{run}/lease", request, LeaseGranted)


async def tools(client: ApiClient, run: str, request: ToolsRequest) -> list[ToolOffer]:
    """What the server calls for the run. Raises `Forbidden` for what the module was not granted, `Conflict`."""
    return await client.post(f"/api/v1/runs/{run}/tools", request, list[ToolOffer], timeout=_CONNECT_S)


async def call_tool(client: ApiClient, run: str, request: ToolCall) -> Any:
    """The result of a call that the run's log has as begun. Raises what the tool raises, `Forbidden` or `Conflict`."""
    path = f"/api/v1/runs/{run}/tools/call"
    return (await client.post(path, request, ToolResult, timeout=request.timeout + _GRACE_S)).result

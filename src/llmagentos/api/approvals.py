"""Approvals on the wire: tool calls that wait for a person, and the client's calls."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient


class Approval(msgspec.Struct, frozen=True):
    """A tool call that waits for a person. Times are seconds since the epoch, UTC."""

    id: str
    """`RUN.CALL`."""
    run: str
    agent: str
    call_id: str
    tool: str
    arguments: dict[str, Any]
    request: str
    """The start of what the run was asked."""
    requested_by: str
    """Who asked for the run."""
    asked: float
    expires: float
    """When it is denied, if nobody has answered."""
    notified: bool = False
    """Whether the webhook took notice."""


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a person says of a call."""

    reason: Annotated[str, Meta(max_length=2000)] | None = None


class Answered(msgspec.Struct, frozen=True):
    """A call that was answered."""

    approval: Approval
    approved: bool
    by: str
    reason: str | None = None


async def listing(client: ApiClient) -> list[Approval]:
    """The calls that wait, the oldest first."""
    return await client.get("/api/v1/approvals", list[Approval])


async def approve(client: ApiClient, approval: str, reason: str | None = None) -> Answered:
    """Let the call be made. Raises `NotFound`, or `Conflict` when somebody else answered first."""
    return await client.post(f"/api/v1/approvals/{quote(approval, safe='')}/approve", Answer(reason), Answered)


async def deny(client: ApiClient, approval: str, reason: str | None = None) -> Answered:
    """Have the call not be made; the agent is told why. Raises as `approve`."""
    return await client.post(f"/api/v1/approvals/{quote(approval, safe='')}/deny", Answer(reason), Answered)

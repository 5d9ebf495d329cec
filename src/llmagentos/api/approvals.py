"""Approvals on the wire: tool calls and jobs that wait for a person, and the client's calls."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient

_JOB = re.compile(r"job-([1-9][0-9]{0,14})")


class Approval(msgspec.Struct, frozen=True):
    """A tool call, or a job, that waits for a person. Times are seconds since the epoch, UTC.

    A job has no `run`, `agent` and `call_id`; its `tool` is the playbook, its `arguments` are the variables, and its
    `request` is what it is limited to.
    """

    id: str
    """`RUN.CALL`, or `job-NUMBER`."""
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
    kind: Literal["call", "job"] = "call"
    job: int | None = None
    approvers: list[str] = []
    """Who may answer, when the job says so."""


def job_approval(job: int) -> str:
    """The id of what is asked about a job."""
    return f"job-{job}"


def job_of(approval: str) -> int | None:
    """The job whose approval has this id; None for that of a tool call."""
    found = _JOB.fullmatch(approval)
    return int(found[1]) if found is not None else None


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a person says of a call."""

    reason: Annotated[str, Meta(max_length=2000)] | None = None


class Answered(msgspec.Struct, frozen=True):
    """A call or a job that was answered."""

    approval: Approval
    approved: bool
    by: str
    reason: str | None = None


async def listing(client: ApiClient) -> list[Approval]:
    """What waits, the oldest first."""
    return await client.get("/api/v1/approvals", list[Approval])


async def approve(client: ApiClient, approval: str, reason: str | None = None) -> Answered:
    """Let the call be made. Raises `NotFound`, or `Conflict` when somebody else answered first."""
    return await client.post(f"/api/v1/approvals/{quote(approval, safe='')}/approve", Answer(reason), Answered)


async def deny(client: ApiClient, approval: str, reason: str | None = None) -> Answered:
    """Have the call not be made; the agent is told why. Raises as `approve`."""
    return await client.post(f"/api/v1/approvals/{quote(approval, safe='')}/deny", Answer(reason), Answered)

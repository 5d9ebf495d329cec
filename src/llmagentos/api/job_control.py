"""When and how a job is let run: retries, lock, window, approval, rollout in batches; and what is told of it.

Times are seconds since the epoch, UTC; durations are seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient

MAX_HISTORY = 1000
"""Changes in one answer."""

Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$")]
MAX_KEY = 200
Key = Annotated[str, Meta(min_length=1, max_length=MAX_KEY)]
SHARE = r"^(\d{1,6}|(100|\d{1,2}(\.\d{1,2})?)%)$"
Share = Annotated[str, Meta(pattern=SHARE)]
"""So many hosts, `5`, or a share of them, `25%`."""

Retried = Literal["failed", "unreachable", "interrupted"]
BatchState = Literal["waiting", "running", "gating", "pausing", "passed", "failed", "skipped"]
Reason = Literal["approval", "window", "lock", "backoff", "gate", "pause", "rollback"]


class Retries(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A node that ended so tries again: a new attempt from the playbook's first task."""

    max: Annotated[int, Meta(ge=1, le=10)]
    """Further attempts after the first one."""
    on: Annotated[list[Retried], Meta(min_length=1)] = msgspec.field(default_factory=lambda: ["failed", "unreachable"])
    backoff_s: Annotated[float, Meta(ge=0, le=86_400)] = 10.0
    """Before the second attempt; twice as long before each later one, at most a day."""


class Rollout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One batch of nodes after the other; the first one is the canary."""

    batches: Annotated[list[Share], Meta(min_length=1, max_length=64)]
    """Sizes as Ansible's `serial` takes them: hosts or shares of all; the last one is repeated."""
    max_failures: Share = "0"
    """No further batch once more than this failed: so many hosts, or a share of those that were let run."""
    gate: Text | None = None
    """URL that has to answer 2xx for each node of a batch; `{{ node }}` and inventory variables are filled in."""
    gate_playbook: Text | None = None
    """Playbook in the bundle that has to succeed on the nodes of a batch."""
    gate_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    pause_s: Annotated[float, Meta(ge=0, le=7 * 86_400)] = 0.0
    """Between a batch that passed and the next one."""
    rollback: Text | None = None
    """Playbook in the bundle that runs on all nodes that were let run, once the rollout was stopped."""


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a job waits for."""

    reason: Reason
    detail: str = ""
    """The window's or lock's name, who holds it, the batch."""
    until: float | None = None
    """When that ends, as far as it is known."""


class Approval(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody's word before a job begins."""

    state: Literal["waiting", "approved", "denied", "expired"] = "waiting"
    by: str | None = None
    at: float | None = None
    reason: str | None = None
    notified: bool = False
    """Whether the webhook took notice."""


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why somebody approves or denies."""

    reason: Text | None = None


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """A batch of a rollout; the last one of `kind` rollback when there is one."""

    number: int
    state: BatchState
    nodes: list[str] = []
    kind: Literal["batch", "rollback"] = "batch"
    at: float | None = None
    """When it came into its state."""
    until: float | None = None
    message: str | None = None
    job: int | None = None
    """The job that checks it (`gate_playbook`) or rolls back."""


class JobChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened to a job: who changed what from which state to which, and when."""

    id: int
    at: float
    by: str
    what: Literal["job", "host", "batch", "approval"]
    after: str
    before: str | None = None
    node: str | None = None
    batch: int | None = None
    attempt: int = 1
    message: str | None = None


async def history(client: ApiClient, job: int, *, after: int = 0, limit: int = MAX_HISTORY) -> list[JobChange]:
    """Changes of a job after the one with id `after`, oldest first."""
    query = {"after": after, "limit": limit}
    return await client.get(f"/api/v1/jobs/{job}/history", list[JobChange], query=query)

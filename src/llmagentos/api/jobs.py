"""Jobs on the wire: what is asked for, what a node gets, what comes back, and the client's calls.

A node numbers the events of one job from 1 (`seq`); sending them again changes nothing. Readers get
them as `JobRecord`s, which say the node and carry an id to resume a stream from. Times are seconds
since the epoch, UTC; durations are seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient
from llmagentos.api.job_control import Approval, Batch, Decision, Key, Name, Retries, Rollout, Text, Waiting
from llmagentos.api.job_events import Difference as Difference
from llmagentos.api.job_events import JobEvent as JobEvent
from llmagentos.api.job_events import JobRecord as JobRecord
from llmagentos.api.job_events import LogLine as LogLine
from llmagentos.api.job_events import PlayStarted as PlayStarted
from llmagentos.api.job_events import Recap as Recap
from llmagentos.api.job_events import Stats as Stats
from llmagentos.api.job_events import Status as Status
from llmagentos.api.job_events import TaskResult as TaskResult
from llmagentos.api.job_events import TaskStarted as TaskStarted
from llmagentos.api.plays import Span
from llmagentos.api.vault import MAX_PASSWORDS, VaultPassword
from llmagentos.core.errors import Conflict

MAX_EVENTS = 500
"""Events in one request of a node."""
MAX_EVENT_BYTES = 256 * 1024
"""One event as JSON; `api.bounded.bounded` makes a result fit."""
MAX_BATCH_BYTES = 3 * 1024 * 1024
"""All events of one request as JSON: within what the server takes as a body."""
ANSWERS = "llmagentos_answers"
"""The extra variable with what was answered to a playbook's `vars_prompt`, which only the program that runs the
playbook sees: by name those of all plays that ask for it, in order, each as {"value": text or None, "salt": text or
None}."""
POLL_S = 25.0
"""Longest wait of one claim: below what proxies and clients cut."""

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of a bundle's bytes, hexadecimal."""
JobState = Literal["waiting_approval", "waiting", "queued", "running", "succeeded", "failed", "cancelled"]
Kind = Literal["playbook", "puppet", "salt"]
HostState = Literal[
    "held", "queued", "running", "cancelling", "succeeded", "failed", "unreachable", "interrupted", "cancelled"
]
HostEnd = Literal["succeeded", "failed", "unreachable", "interrupted", "cancelled"]


class EventGap(Conflict):
    """Events came that do not follow those before; `details["next_seq"]` is the next one expected."""

    code = "event_gap"


class InventorySource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `-i`: an inventory in INI or YAML as text, or names with commas."""

    name: Text
    """Shown in messages, as file:line."""
    text: Annotated[str, Meta(max_length=1024 * 1024)]
    directory: Text | None = None
    """Path inside the bundle of its `group_vars` and `host_vars`; None without any."""


class JobSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A playbook to run. The bundle (a tar.gz of its directory) has to be uploaded before."""

    bundle: Digest
    playbook: Text
    """Path inside the bundle."""
    inventory: Annotated[list[InventorySource], Meta(max_length=32)] = []
    """Without any: every node, in the group `all`."""
    limit: Text | None = None
    """An Ansible host pattern that narrows the hosts down."""
    extra_vars: dict[str, Any] = {}
    check: bool = False
    diff: bool = False
    tags: Annotated[list[Text], Meta(max_length=256)] = []
    skip_tags: Annotated[list[Text], Meta(max_length=256)] = []
    verbosity: Annotated[int, Meta(ge=0, le=4)] = 0
    start_at_task: Text | None = None
    """Name or pattern of the task to begin with."""
    forks: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    """Nodes at a time, for each task; all when nothing is said."""
    lockstep: bool | None = None
    """Whether nodes go from task to task together, as with ansible-playbook; None: if the playbook needs it."""
    timeout_s: Annotated[float, Meta(gt=0, le=7 * 86400)] = 24 * 3600.0
    """A node stops the playbook after this."""
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    """In a node's queue the higher ones come first; those of one priority strictly in the order they came."""
    total_timeout_s: Annotated[float, Meta(gt=0, le=31 * 86_400)] | None = None
    """What has not ended on some node so long after the job was let run, is stopped there and has failed."""
    retries: Retries | None = None
    lock: Name | None = None
    """Of jobs with the same lock one runs at a time."""
    window: Name | None = None
    """Begins only while this maintenance window (configuration: `windows`) is open."""
    window_end: Literal["finish", "stop"] = "finish"
    """What becomes of it when the window closes while it runs."""
    approval: Literal["required"] | None = None
    approvers: Annotated[list[Text], Meta(max_length=64)] = []
    """Who may approve, as `kind:name` or `kind:*`; without any, everybody who may approve jobs."""
    rollout: Rollout | None = None
    secrets: Annotated[list[Text], Meta(max_length=64)] = []
    """Names of `extra_vars` that are sealed to the nodes' keys, told to nobody else, and forgotten at its end."""
    literal: Annotated[list[Text], Meta(max_length=256)] = []
    """Names of `extra_vars` in which no text is a template: what `{{ }}` in them says is not evaluated anywhere."""
    idempotency_key: Key | None = None
    """The same key with the same request is the same job; the header `Idempotency-Key` says the same."""
    kind: Kind = "playbook"
    """What `playbook` is: an Ansible playbook, a Puppet manifest, or a directory of Salt states or one of them."""


class JobRequest(JobSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A job as somebody asks for it: what is never stored as it is comes beside what is."""

    vault: Annotated[list[VaultPassword], Meta(max_length=MAX_PASSWORDS)] = []
    """Sealed to the key of each node; needed again once a node's key was replaced."""

    def spec(self) -> JobSpec:
        """What is stored."""
        return JobSpec(**{name: getattr(self, name) for name in JobSpec.__struct_fields__})


class BundleInfo(msgspec.Struct, frozen=True):
    """A stored bundle."""

    digest: str
    size: int


class JobHost(msgspec.Struct, frozen=True):
    """A job on one of its nodes."""

    node: str
    state: HostState
    ahead: int = 0
    """Jobs before it in the node's queue."""
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    recap: Stats | None = None
    message: str | None = None
    """Why it ended as it did, or what it waits for."""
    attempt: int = 1
    batch: int | None = None
    not_before: float | None = None
    """When the next attempt may begin."""


class JobSummary(msgspec.Struct, frozen=True):
    """A job in a list."""

    id: int
    name: str
    """The playbook's path."""
    state: JobState
    created: float
    created_by: str
    nodes: list[str]
    modes: list[str] = []
    """`check` and `diff` when asked for."""
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    """Once ended, as ansible-playbook's: 0, 2 (a host failed) or 4 (one was unreachable); 1 when cancelled."""
    priority: int = 0
    waiting_for: Waiting | None = None
    origin: str | None = None
    """What made it, when not a person: `schedule:NAME`, `template:NAME`, `job:NUMBER`."""


class Job(msgspec.Struct, frozen=True):
    """One job in full."""

    summary: JobSummary
    spec: JobSpec
    hosts: list[JobHost]
    waiting: list[str] = []
    """Nodes of this job that are away: they get it when they are back."""
    batches: list[Batch] = []
    approval: Approval | None = None
    message: str | None = None
    """Why it ended as it did, as far as no node says it."""


# --- a node's own queue -----------------------------------------------------------------------


class InventoryGroup(msgspec.Struct, frozen=True, omit_defaults=True):
    """A group: its own hosts, its child groups, its variables."""

    hosts: list[str] = []
    children: list[str] = []
    vars: dict[str, Any] = {}


class Inventory(msgspec.Struct, frozen=True, omit_defaults=True):
    """All hosts and groups that the playbook may name."""

    groups: dict[str, InventoryGroup] = {}
    hostvars: dict[str, dict[str, Any]] = {}
    directory: str | None = None
    """Path inside the bundle with `group_vars` and `host_vars` that belong to the inventory."""
    span: Span | None = None
    """Set when plays span nodes."""
    sealed: dict[str, list[str]] = {}
    """By node, the vault passwords in boxes that only it can open: one for each key that it may have."""
    sealed_variables: dict[str, list[str]] = {}
    """By node and likewise, the job's secrets: a JSON object of `extra_vars`."""


class NodeJob(msgspec.Struct, frozen=True):
    """What a node has to do now: run the playbook for `host`, which is itself."""

    job: int
    fence: int
    """Goes with everything the node says of this job; a later claim makes it void."""
    host: str
    bundle: str
    playbook: str
    inventory: Inventory
    resumed: bool = False
    """Claimed before by this node: what is known of it on the node decides, it is not begun twice."""
    next_seq: int = 1
    """The first event that the server does not have."""
    cancel: bool = False
    """It shall stop."""
    local: bool = False
    """A play says `hosts: localhost`: here that is this node, so the limit is the host and localhost."""
    extra_vars: dict[str, Any] = {}
    literal: list[str] = []
    check: bool = False
    diff: bool = False
    tags: list[str] = []
    skip_tags: list[str] = []
    verbosity: int = 0
    start_at_task: str | None = None
    timeout_s: float = 24 * 3600.0
    kind: Kind = "playbook"
    attempt: int = 1
    """From 2 on a new one of the same job, begun from the first task; its events count from 1 again."""


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for the node's next job, waiting up to `wait` seconds for one."""

    wait: Annotated[float, Meta(ge=0, le=60)] = POLL_S


class Claimed(msgspec.Struct, frozen=True):
    """The job, or None when none came in time. The lease has to be renewed within `lease_s`."""

    job: NodeJob | None
    lease_s: float


class Fence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Renews the lease of a claimed job."""

    fence: int


RENEW_S = 3.0
"""How often a lease is renewed where few nodes work: the answer brings the order to stop."""


class Ack(msgspec.Struct, frozen=True):
    """What the server has: events up to `next_seq`, and whether the job shall stop."""

    next_seq: int
    cancel: bool
    lease_s: float
    renew_s: float = RENEW_S
    """When to renew the lease: later than that when many nodes work."""


class Events(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events of a claimed job, numbered without gaps from the first; those known already are skipped."""

    fence: int
    events: Annotated[list[JobEvent], Meta(max_length=MAX_EVENTS)]


class Finish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The end of a claimed job on this node, after its last event."""

    fence: int
    status: HostEnd
    exit_code: int
    recap: Stats | None = None
    message: Text | None = None


# --- the client's calls: people ---------------------------------------------------------------

_JOBS = "/api/v1/jobs"


async def bundle(client: ApiClient, digest: str) -> BundleInfo:
    """The stored bundle. Raises `NotFound` when it has to be uploaded."""
    return await client.get(f"/api/v1/bundles/{digest}", BundleInfo)


async def upload_bundle(client: ApiClient, digest: str, content: bytes, *, timeout: float = 120.0) -> BundleInfo:
    """Store a bundle; storing it again changes nothing."""
    return await client.upload(f"/api/v1/bundles/{digest}", content, BundleInfo, timeout=timeout)


async def submit(client: ApiClient, spec: JobSpec) -> Job:
    """Check and queue a job. Raises `InvalidInput` with file:line before anything is queued."""
    return await client.post(_JOBS, spec, Job)


async def listing(
    client: ApiClient, *, limit: int = 50, before: int | None = None, node: str | None = None
) -> list[JobSummary]:
    """Jobs, newest first; those before the id `before`, of one node."""
    return await client.get(_JOBS, list[JobSummary], query={"limit": limit, "before": before, "node": node})


async def show(client: ApiClient, job: int) -> Job:
    """One job."""
    return await client.get(f"{_JOBS}/{job}", Job)


async def cancel(client: ApiClient, job: int) -> Job:
    """Take a job out of the queues and stop it where it runs."""
    return await client.post(f"{_JOBS}/{job}/cancel", {}, Job)


async def approve(client: ApiClient, job: int, reason: str | None = None) -> Job:
    """Let a job that needs approval run. Raises `Conflict` when somebody else was first, `Forbidden`."""
    return await client.post(f"{_JOBS}/{job}/approve", Decision(reason), Job)


async def deny(client: ApiClient, job: int, reason: str | None = None) -> Job:
    """Refuse a job that needs approval: it is cancelled. Raises `Conflict` or `Forbidden` as `approve` does."""
    return await client.post(f"{_JOBS}/{job}/deny", Decision(reason), Job)


async def events(client: ApiClient, job: int, *, after: int = 0, limit: int = 1000) -> list[JobRecord]:
    """Stored events after the id `after`, at most `limit`."""
    return await client.get(f"{_JOBS}/{job}/events", list[JobRecord], query={"after": after, "limit": limit})


@asynccontextmanager
async def follow(client: ApiClient, job: int, *, after: int = 0) -> AsyncIterator[AsyncIterator[JobRecord | Job]]:
    """Events from `after` on as they come; a `Job` at the begin and whenever its state changes. Ends with the job."""
    async with client.events(f"{_JOBS}/{job}/events", query={"follow": 1, "after": after}) as stream:

        async def items() -> AsyncIterator[JobRecord | Job]:
            async for item in stream:
                yield item.decode(JobRecord) if item.event == "event" else item.decode(Job)

        yield items()


# --- the client's calls: a node ---------------------------------------------------------------

_QUEUE = "/api/v1/nodes/self/queue"


async def claim(client: ApiClient, *, wait: float = POLL_S) -> Claimed:
    """The node's next job, strictly in order and one at a time; waits up to `wait` seconds for it."""
    return await client.post(f"{_QUEUE}/claim", Claim(wait), Claimed, timeout=wait + 15)


async def renew(client: ApiClient, job: int, fence: int) -> Ack:
    """Keep the job. Raises `Conflict` when it has to be claimed again."""
    return await client.put(f"{_QUEUE}/{job}/lease", Fence(fence), Ack)


async def send_events(client: ApiClient, job: int, fence: int, batch: list[JobEvent]) -> Ack:
    """Append events; those that the server has are skipped. Raises `EventGap`, or `Conflict` on an old fence."""
    return await client.post(f"{_QUEUE}/{job}/events", Events(fence, batch), Ack)


async def finish(client: ApiClient, job: int, end: Finish) -> None:
    """Report the end; saying it again changes nothing."""
    await client.post(f"{_QUEUE}/{job}/finish", end, type(None))


async def download_bundle(client: ApiClient, digest: str, *, timeout: float = 120.0) -> bytes:
    """The bytes of a bundle that a job in the node's queue needs."""
    return await client.download(f"/api/v1/nodes/self/bundles/{digest}", timeout=timeout)

"""The tables of jobs, and their rows as values. Times are seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text, UniqueConstraint
from sqlalchemy.engine import Row

from llmagentos.api.job_control import Approval, Waiting
from llmagentos.api.job_control import Batch as BatchInfo
from llmagentos.api.jobs import HostState, JobSpec, JobState, Stats
from llmagentos.storage.database import METADATA

ENDED = ("succeeded", "failed", "cancelled")
OPEN = ("queued", "running", "cancelling")
"""States of what is in a node's queue."""
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False),
    Column("bundle", String(64), nullable=False),
    Column("spec", Text, nullable=False),  # api.jobs.JobSpec as JSON
    Column("inventory", Text, nullable=False),  # api.jobs.Inventory as JSON
    Column("local", Boolean, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", Float, nullable=False, index=True),
    Column("created_by", String(300), nullable=False),
    Column("started", Float),
    Column("ended", Float, index=True),
    Column("exit_code", Integer),
    Column("last_event", Integer, nullable=False),
    Column("last_change", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("driven", Boolean, nullable=False),  # something more than its queues decides when it runs
    Column("lock", String(128)),
    Column("released", Float),  # when it was let run first
    Column("waiting", Text),  # api.job_control.Waiting as JSON
    Column("approval", Text),  # api.job_control.Approval as JSON
    Column("message", Text),
    Column("origin", String(300)),
    Column("parent", _NUMBER, index=True),
    Column("key", String(200)),
    Column("request", String(64)),  # SHA-256 of what was asked for with the key
    UniqueConstraint("created_by", "key"),
    Index(None, "driven", "state"),
    sqlite_autoincrement=True,
)

JOB_COLUMNS = tuple(column for column in JOBS.c if column is not JOBS.c.inventory)
"""What `JobRow` has: inventories of a thousand hosts are read only where they are needed."""

HOSTS = Table(
    "job_hosts",
    METADATA,
    Column("job", _NUMBER, primary_key=True, autoincrement=False),
    Column("node", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("next_seq", Integer, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("exit_code", Integer),
    Column("recap", Text),  # api.jobs.Stats as JSON
    Column("message", Text),
    Column("attempt", Integer, nullable=False),
    Column("batch", Integer),
    Column("not_before", Float),
    Column("expired", Boolean, nullable=False),  # it is being stopped because its time is over
    Index(None, "node", "state", "job"),
)

EVENTS = Table(
    "job_events",
    METADATA,
    Column("job", _NUMBER, primary_key=True, autoincrement=False),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("node", String(64), nullable=False),
    Column("event", Text, nullable=False),  # api.jobs.JobEvent as JSON
)

HISTORY = Table(
    "job_history",
    METADATA,
    Column("job", _NUMBER, primary_key=True, autoincrement=False),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("by", String(300), nullable=False),
    Column("what", String(16), nullable=False),
    Column("node", String(64)),
    Column("batch", Integer),
    Column("attempt", Integer, nullable=False),
    Column("before", String(16)),
    Column("after", String(16), nullable=False),
    Column("message", Text),
)

BATCHES = Table(
    "job_batches",
    METADATA,
    Column("job", _NUMBER, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),  # batch, rollback
    Column("state", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("until", Float),
    Column("message", Text),
    Column("child", _NUMBER),  # the job that checks it, or rolls back
)

LOCKS = Table(
    "job_locks",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("job", _NUMBER, nullable=False, index=True),
    Column("at", Float, nullable=False),
)

ALL = (EVENTS.c.job, HISTORY.c.job, BATCHES.c.job, LOCKS.c.job, HOSTS.c.job, JOBS.c.id)


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as stored."""

    id: int
    name: str
    spec: JobSpec
    local: bool
    state: JobState
    created: float
    created_by: str
    started: float | None
    ended: float | None
    exit_code: int | None
    last_event: int
    last_change: int
    driven: bool
    released: float | None
    waiting: Waiting | None
    approval: Approval | None
    message: str | None
    origin: str | None
    parent: int | None
    request: str | None


@dataclass(frozen=True, slots=True)
class HostRow:
    """A job on one node, as stored."""

    job: int
    node: str
    priority: int
    state: HostState
    fence: int
    next_seq: int
    started: float | None
    ended: float | None
    exit_code: int | None
    recap: Stats | None
    message: str | None
    attempt: int
    batch: int | None
    not_before: float | None
    expired: bool


def to_json(value: Any) -> str:
    """As it is stored."""
    return msgspec.json.encode(value).decode()


def job_row(row: Row[Any]) -> JobRow:
    """A row of `JOBS`."""
    return JobRow(
        row.id,
        row.name,
        msgspec.json.decode(row.spec, type=JobSpec),
        row.local,
        row.state,
        row.created,
        row.created_by,
        row.started,
        row.ended,
        row.exit_code,
        row.last_event,
        row.last_change,
        row.driven,
        row.released,
        msgspec.json.decode(row.waiting, type=Waiting) if row.waiting else None,
        msgspec.json.decode(row.approval, type=Approval) if row.approval else None,
        row.message,
        row.origin,
        row.parent,
        row.request,
    )


def host_row(row: Row[Any]) -> HostRow:
    """A row of `HOSTS`."""
    recap = msgspec.json.decode(row.recap, type=Stats) if row.recap else None
    return HostRow(
        row.job,
        row.node,
        row.priority,
        row.state,
        row.fence,
        row.next_seq,
        row.started,
        row.ended,
        row.exit_code,
        recap,
        row.message,
        row.attempt,
        row.batch,
        row.not_before,
        row.expired,
    )


def batch_row(row: Row[Any]) -> BatchInfo:
    """A row of `BATCHES`; its nodes are told by `HOSTS`."""
    return BatchInfo(row.number, row.state, [], row.kind, row.at, row.until, row.message, row.child)

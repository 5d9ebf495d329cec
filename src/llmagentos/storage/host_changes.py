"""Changes of a job on single nodes, those of many nodes in one transaction; none reads the other nodes of its job.

What a step makes of the job as a whole is told by how many of its nodes are in which state, and by its batches; what
is to be decided on all its nodes is for `JobChanges`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from llmagentos.api.job_control import Batch
from llmagentos.api.jobs import HostState, JobEvent, JobRecord, LogLine, Stats
from llmagentos.core.clock import Clock
from llmagentos.core.errors import NotFound
from llmagentos.storage.database import Database
from llmagentos.storage.job_changes import Conclude, concluded
from llmagentos.storage.job_tables import (
    BATCHES,
    EVENTS,
    HISTORY,
    HOSTS,
    JOB_COLUMNS,
    JOBS,
    LOCKS,
    HostRow,
    JobRow,
    batch_row,
    host_row,
    job_row,
    to_json,
)


@dataclass(frozen=True, slots=True)
class HostStep:
    """New values of a job on a node, what to keep of what the node told, and lines of our own before it."""

    values: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[JobEvent] = ()
    lines: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.values or self.events or self.lines)


Decide = Callable[[JobRow, HostRow], HostStep]


@dataclass(frozen=True, slots=True)
class HostWish:
    """A change that `by` wants of a job on a node; `decide` raises what forbids it."""

    job: int
    node: str
    by: str
    decide: Decide


@dataclass(frozen=True, slots=True)
class HostChanged:
    """A job after the group of changes, how many nodes it has, and where its node stands after this change."""

    row: JobRow
    nodes: int
    before: HostRow
    host: HostRow
    changed: bool
    ended: bool
    """Whether the job ended: said once, to one of those made together that changed where a node stands."""
    records: list[JobRecord]


@dataclass(slots=True)
class _Work:
    """What one group does to one job."""

    row: JobRow
    hosts: dict[str, HostRow]
    values: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    events: list[JobRecord] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    after: JobRow | None = None
    nodes: int = 0
    ended: bool = False


class HostChanges:
    """Changes what `wish`es ask for. `conclude` is what the states of its nodes and its batches make of a job."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def change(self, wishes: Sequence[HostWish], conclude: Conclude) -> list[HostChanged | Exception]:
        """Each one's result, or its own error: `NotFound`, or what its `decide` raises."""
        async with self._database.write() as connection:
            works = await self._read(connection, wishes)
            steps = [self._decided(works.get(wish.job), wish) for wish in wishes]
            await self._store_hosts(connection, works)
            for work in works.values():
                await self._store_job(connection, work, conclude)
        return [
            step if isinstance(step, Exception) else self._told(works[wish.job], *step)
            for wish, step in zip(wishes, steps, strict=True)
        ]

    async def _read(self, connection: AsyncConnection, wishes: Sequence[HostWish]) -> dict[int, _Work]:
        nodes: dict[int, set[str]] = defaultdict(set)
        for wish in wishes:
            nodes[wish.job].add(wish.node)
        locked = select(*JOB_COLUMNS).where(JOBS.c.id.in_(sorted(nodes))).order_by(JOBS.c.id).with_for_update()
        works: dict[int, _Work] = {}
        for row in (await connection.execute(locked)).all():
            here = (HOSTS.c.job == row.id) & HOSTS.c.node.in_(sorted(nodes[row.id]))
            found = [host_row(each) for each in await connection.execute(select(HOSTS).where(here))]
            works[row.id] = _Work(job_row(row), {host.node: host for host in found})
        return works

    def _decided(
        self, work: _Work | None, wish: HostWish
    ) -> tuple[HostRow, HostRow, bool, list[JobRecord]] | Exception:
        if work is None or (before := work.hosts.get(wish.node)) is None:
            return NotFound(f"this job is not for node {wish.node!r}")
        try:
            step = wish.decide(work.row, before)
        except Exception as error:  # this one's answer: the others of the group do not depend on it
            return error
        now = self._clock.time()
        told = [*(LogLine(seq=1, at=now, text=text) for text in step.lines), *step.events]
        first = work.row.last_event + len(work.events) + 1
        records = [JobRecord(id_, wish.node, event) for id_, event in enumerate(told, first)]
        work.events += records
        after = before
        if step.values:
            after = work.hosts[wish.node] = _with(before, step.values)
            work.values[wish.node].update(step.values)
        if (before.state, before.attempt) != (after.state, after.attempt):
            line = {"what": "host", "node": wish.node, "before": before.state, "after": after.state, "by": wish.by}
            work.history.append(line | {"attempt": after.attempt, "message": after.message, "batch": after.batch})
        return before, after, bool(step), records

    async def _store_hosts(self, connection: AsyncConnection, works: Mapping[int, _Work]) -> None:
        alike: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
        for job, work in works.items():
            for node, values in work.values.items():
                new = {f"new_{name}": value for name, value in values.items()}
                alike[tuple(sorted(values))].append({"of_job": job, "of_node": node, **new})
        mine = (HOSTS.c.job == bindparam("of_job")) & (HOSTS.c.node == bindparam("of_node"))
        for names, rows in alike.items():
            changed = update(HOSTS).where(mine).values({name: bindparam(f"new_{name}") for name in names})
            await connection.execute(changed, rows)
        events = [
            {"job": job, "id": record.id, "node": record.node, "event": to_json(record.event)}
            for job, work in works.items()
            for record in work.events
        ]
        if events:
            await connection.execute(insert(EVENTS), events)

    async def _store_job(self, connection: AsyncConnection, work: _Work, conclude: Conclude) -> None:
        row, values = work.row, dict[str, Any]()
        if work.events:
            values["last_event"] = row.last_event + len(work.events)
        if work.history:
            counted = select(HOSTS.c.state, func.count()).where(HOSTS.c.job == row.id).group_by(HOSTS.c.state)
            states: dict[HostState, int] = {each[0]: int(each[1]) for each in await connection.execute(counted)}
            work.nodes = sum(states.values())
            begun = [each["started"] for each in work.values.values() if each.get("started") is not None]
            found = conclude(row, states.keys(), await self._batches(connection, row))
            values |= concluded(row, min(begun, default=None), found, self._clock.time())
            if "state" in values:
                line = {"what": "job", "before": row.state, "after": values["state"], "by": work.history[-1]["by"]}
                work.history.append(line | {"message": values.get("message", row.message)})
            values["last_change"] = row.last_change + len(work.history)
            await self._note(connection, work)
        if values:
            await connection.execute(update(JOBS).where(JOBS.c.id == row.id).values(**values))
        work.ended = "ended" in values
        if work.ended:
            await connection.execute(delete(LOCKS).where(LOCKS.c.job == row.id))
        shown = {name: values[name] for name in ("state", "started", "ended", "exit_code", "message") if name in values}
        work.after = replace(row, **shown)

    async def _batches(self, connection: AsyncConnection, row: JobRow) -> list[Batch]:
        if row.spec.rollout is None:
            return []
        return [batch_row(each) for each in await connection.execute(select(BATCHES).where(BATCHES.c.job == row.id))]

    async def _note(self, connection: AsyncConnection, work: _Work) -> None:
        empty = {"node": None, "batch": None, "attempt": 1, "before": None, "message": None}
        common = {"job": work.row.id, "at": self._clock.time()}
        rows = [
            {**empty, **line, **common, "id": id_, "by": line["by"][:300]}
            for id_, line in enumerate(work.history, work.row.last_change + 1)
        ]
        await connection.execute(insert(HISTORY), rows)

    def _told(
        self, work: _Work, before: HostRow, host: HostRow, changed: bool, records: list[JobRecord]
    ) -> HostChanged:
        assert work.after is not None
        ended = work.ended and (before.state, before.attempt) != (host.state, host.attempt)
        work.ended = work.ended and not ended
        return HostChanged(work.after, work.nodes, before, host, changed, ended, records)


def _with(host: HostRow, values: Mapping[str, Any]) -> HostRow:
    known = dict(values)
    if "recap" in known:
        known["recap"] = msgspec.json.decode(known["recap"], type=Stats) if known["recap"] else None
    return replace(host, **known)

"""What the nodes of a job whose plays span them tell each other, in one order; kept while the job runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    Row,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from llmagentos.api.jobs import Inventory
from llmagentos.api.plays import Share, Shared
from llmagentos.core.clock import Clock
from llmagentos.storage.database import METADATA, Database
from llmagentos.storage.job_tables import ENDED, HOSTS, JOBS

PAGE_BYTES = 4 * 1024 * 1024
"""About as much as is read at once."""
_SLICE = 20
_NUMBER = BigInteger().with_variant(Integer, "sqlite")
_WORKING = ("running", "cancelling")
_NOT_YET = ("held", "queued")

SPANS = Table(
    "job_spans",
    METADATA,
    Column("job", _NUMBER, primary_key=True, autoincrement=False),
    Column("begun", Float, nullable=False),
)

SHARES = Table(
    "job_shares",
    METADATA,
    Column("job", _NUMBER, primary_key=True, autoincrement=False),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("node", String(64), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("content", Text, nullable=False),  # a node's share as JSON
    Index(None, "job", "node", "seq", unique=True),
)


class ShareRecords:
    """Queries over the shares."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def begin(self, job: int) -> None:
        """The job's first node begins; said again it changes nothing."""
        async with self._database.write() as connection:
            known = select(SPANS.c.job).where(SPANS.c.job == job).with_for_update()
            if (await connection.execute(known)).first() is None:
                await connection.execute(insert(SPANS).values(job=job, begun=self._clock.time()))

    async def append(
        self, job: int, node: str, fence: int, first_seq: int, shares: Sequence[dict[str, Any]]
    ) -> int | None:
        """Keep what is new of a node's shares; its next number. None unless it holds the job with this token."""
        async with self._database.write() as connection:
            await connection.execute(select(JOBS.c.id).where(JOBS.c.id == job).with_for_update())
            here = select(HOSTS.c.state, HOSTS.c.fence).where(HOSTS.c.job == job, HOSTS.c.node == node)
            if not _holds((await connection.execute(here)).all(), fence):
                return None
            mine = select(func.max(SHARES.c.seq)).where(SHARES.c.job == job, SHARES.c.node == node)
            all_ = select(func.max(SHARES.c.id)).where(SHARES.c.job == job)
            next_seq = ((await connection.execute(mine)).scalar() or 0) + 1
            next_id = ((await connection.execute(all_)).scalar() or 0) + 1
            if first_seq > next_seq:
                return int(next_seq)  # some are missing: they have to come first
            new = shares[next_seq - first_seq :]
            if new:
                rows = [
                    {"job": job, "id": next_id + i, "node": node, "seq": next_seq + i, "content": _json(share)}
                    for i, share in enumerate(new)
                ]
                await connection.execute(insert(SHARES), rows)
        return int(next_seq) + len(new)

    async def after(self, job: int, node: str, fence: int, after: int) -> Shared | None:
        """Shares after the one with id `after`; with the last of them, the nodes on which the job has ended.

        None unless `node`, which asks, holds the job with this token.
        """
        found: list[Share] = []
        size, more = 0, True
        query = select(SHARES).where(SHARES.c.job == job).order_by(SHARES.c.id).limit(_SLICE)
        async with self._database.read() as connection:
            hosts = (await connection.execute(select(HOSTS).where(HOSTS.c.job == job))).all()
            if not _holds([host for host in hosts if host.node == node], fence):
                return None
            while more and size < PAGE_BYTES:
                last = found[-1].id if found else after
                rows = (await connection.execute(query.where(SHARES.c.id > last))).all()
                size += sum(len(row.content) for row in rows)
                found += [Share(row.id, row.node, msgspec.json.decode(row.content)) for row in rows]
                more = len(rows) == _SLICE
        if more:
            return Shared(found, {})
        ended = {h.node: h.message or h.state for h in hosts if h.state not in (*_WORKING, *_NOT_YET)}
        return Shared(found, ended)

    async def forget(self, job: int) -> None:
        """The job has ended: nobody needs its shares any more, nor the secrets that were sealed for it."""
        async with self._database.write() as connection:
            await _wipe(connection, JOBS.c.id == job)
            await connection.execute(delete(SHARES).where(SHARES.c.job == job))
            await connection.execute(delete(SPANS).where(SPANS.c.job == job))

    async def prune(self) -> None:
        """Delete what is left of jobs that have ended or are not there any more."""
        going = select(JOBS.c.id).where(JOBS.c.state.not_in(ENDED))
        async with self._database.write() as connection:
            await _wipe(connection, JOBS.c.state.in_(ENDED))
            for column in (SHARES.c.job, SPANS.c.job):
                await connection.execute(delete(column.table).where(column.not_in(going)))


async def _wipe(connection: AsyncConnection, which: ColumnElement[bool]) -> None:
    """Take the sealed secrets out of the jobs' inventories."""
    sealed = JOBS.c.inventory.like('%"sealed":%') | JOBS.c.inventory.like('%"sealed_variables":%')
    query = select(JOBS.c.id, JOBS.c.inventory).where(which, sealed).limit(1000)
    for row in (await connection.execute(query)).all():
        found = msgspec.json.decode(row.inventory, type=Inventory)
        bare = msgspec.structs.replace(found, sealed={}, sealed_variables={})
        await connection.execute(update(JOBS).where(JOBS.c.id == row.id).values(inventory=_json(bare)))


def _holds(hosts: Sequence[Row[*tuple[Any, ...]]], fence: int) -> bool:
    return any(host.state in _WORKING and host.fence == fence for host in hosts)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

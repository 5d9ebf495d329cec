"""What nodes told of their jobs: appended in order, read in pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import ColumnElement, insert, select, update

from llmagentos.api.jobs import JobEvent, JobRecord
from llmagentos.storage.database import Database
from llmagentos.storage.job_tables import EVENTS, HOSTS, JOBS, HostRow, host_row, to_json

PAGE_BYTES = 8 * 1024 * 1024
"""About as much as is read of a job's events at once."""
SLICE = 50


class JobEvents:
    """The events of all jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self, job: int, node: str, decide: Callable[[HostRow], tuple[int, Sequence[JobEvent]]]
    ) -> tuple[int, list[JobRecord]]:
        """Append events of `node`; `decide` names the next expected number and what to keep of them.

        Returns the node's next number and what was kept, as readers get it.
        """
        mine = (HOSTS.c.job == job) & (HOSTS.c.node == node)
        async with self._database.write() as connection:
            locked = select(JOBS.c.last_event).where(JOBS.c.id == job).with_for_update()
            last = int((await connection.execute(locked)).scalar_one())
            host = host_row((await connection.execute(select(HOSTS).where(mine))).one())
            next_seq, kept = decide(host)
            records = [JobRecord(last + i, node, event) for i, event in enumerate(kept, 1)]
            if next_seq != host.next_seq:
                await connection.execute(update(HOSTS).where(mine).values(next_seq=next_seq))
            if records:
                rows = [{"job": job, "id": r.id, "node": node, "event": to_json(r.event)} for r in records]
                await connection.execute(insert(EVENTS), rows)
                await connection.execute(update(JOBS).where(JOBS.c.id == job).values(last_event=last + len(records)))
        return next_seq, records

    async def after(self, job: int, *, after: int, limit: int) -> list[JobRecord]:
        """Events after the id `after`: at most `limit`, and fewer when they are large."""
        return await self._page(job, EVENTS.c.id > after, EVENTS.c.id.asc(), limit)

    async def last(self, job: int, *, limit: int) -> list[JobRecord]:
        """The newest events, oldest first: at most `limit`, and fewer when they are large."""
        return (await self._page(job, EVENTS.c.id > 0, EVENTS.c.id.desc(), limit))[::-1]

    async def _page(
        self, job: int, wanted: ColumnElement[bool], order: ColumnElement[int], limit: int
    ) -> list[JobRecord]:
        found: list[JobRecord] = []
        size = 0
        query = select(EVENTS).where(EVENTS.c.job == job, wanted).order_by(order)
        async with self._database.read() as connection:
            while len(found) < limit and size < PAGE_BYTES:
                slice_ = min(SLICE, limit - len(found))
                rows = (await connection.execute(query.offset(len(found)).limit(slice_))).all()
                size += sum(len(row.event) for row in rows)
                found += [JobRecord(row.id, row.node, msgspec.json.decode(row.event, type=JobEvent)) for row in rows]
                if len(rows) < slice_:
                    break
        return found

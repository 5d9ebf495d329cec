"""What nodes told of their jobs, read in pages; `HostChanges` appends it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import ColumnElement, select, true

from llmagentos.api.jobs import JobEvent, JobRecord
from llmagentos.storage.database import Database
from llmagentos.storage.job_tables import EVENTS

PAGE_BYTES = 8 * 1024 * 1024
"""About as much as is read of a job's events at once."""
SLICE = 50


class JobEvents:
    """The events of all jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def after(self, job: int, *, after: int, limit: int) -> list[JobRecord]:
        """Events after the id `after`: at most `limit`, and fewer when they are large."""
        return await self._page(job, EVENTS.c.id.asc(), lambda last: EVENTS.c.id > (last or after), limit)

    async def last(self, job: int, *, limit: int, node: str | None = None) -> list[JobRecord]:
        """The newest events (of one node), oldest first: at most `limit`, and fewer when they are large."""
        of_node = EVENTS.c.node == node if node is not None else true()

        def beyond(last: int | None) -> ColumnElement[bool]:
            return (EVENTS.c.id < last if last is not None else EVENTS.c.id > 0) & of_node

        return (await self._page(job, EVENTS.c.id.desc(), beyond, limit))[::-1]

    async def _page(
        self, job: int, order: ColumnElement[int], beyond: Callable[[int | None], ColumnElement[bool]], limit: int
    ) -> list[JobRecord]:
        found: list[JobRecord] = []
        size = 0
        query = select(EVENTS).where(EVENTS.c.job == job).order_by(order)
        async with self._database.read() as connection:
            while len(found) < limit and size < PAGE_BYTES:
                slice_ = min(SLICE, limit - len(found))
                last = found[-1].id if found else None
                rows = (await connection.execute(query.where(beyond(last)).limit(slice_))).all()
                size += sum(len(row.event) for row in rows)
                found += [JobRecord(row.id, row.node, msgspec.json.decode(row.event, type=JobEvent)) for row in rows]
                if len(rows) < slice_:
                    break
        return found

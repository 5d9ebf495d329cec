"""Tasks of remote agents that calls of tools began, so that a call that was interrupted finds its task again."""

from __future__ import annotations

from sqlalchemy import Column, Float, String, Table, Text, delete, insert, select

from llmagentos.core.clock import Clock
from llmagentos.storage.database import METADATA, Database

TASKS = Table(
    "remote_tasks",
    METADATA,
    Column("run", String(12), primary_key=True),
    Column("call", String(200), primary_key=True),  # its id within the run
    Column("task", Text, nullable=False),  # its id over there
    Column("at", Float, nullable=False, index=True),
)


class RemoteTasks:
    """Queries over them."""

    def __init__(self, database: Database, clock: Clock, *, days: float = 30.0) -> None:
        self._database = database
        self._clock = clock
        self._days = days

    async def find(self, run: str, call_id: str) -> str | None:
        """The task that the call began last."""
        query = select(TASKS.c.task).where(TASKS.c.run == run, TASKS.c.call == call_id)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def keep(self, run: str, call_id: str, task: str) -> None:
        """The call began `task`."""
        async with self._database.write() as connection:
            await connection.execute(delete(TASKS).where(TASKS.c.run == run, TASKS.c.call == call_id))
            await connection.execute(insert(TASKS).values(run=run, call=call_id, task=task, at=self._clock.time()))

    async def prune(self) -> int:
        """Forget those that are as old as runs get; how many."""
        limit = self._clock.time() - self._days * 86_400
        async with self._database.write() as connection:
            return (await connection.execute(delete(TASKS).where(TASKS.c.at < limit))).rowcount

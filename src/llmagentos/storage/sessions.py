"""Sessions, as the runs that belong to them tell: there is no second record that could differ from the first."""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, func, select

from llmagentos.api.sessions import SessionInfo
from llmagentos.core.errors import Conflict
from llmagentos.storage.database import Database
from llmagentos.storage.runs import EVENTS, RUNS


class SessionRecords:
    """Queries over them. A session is `by`'s own, and of one agent."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def listing(self, *, by: str | None, agent: str | None, limit: int) -> list[SessionInfo]:
        """Sessions, the last used first; of everybody without `by`."""
        wanted: ColumnElement[bool] = RUNS.c.session.is_not(None)
        if by is not None:
            wanted &= RUNS.c.created_by == by
        if agent is not None:
            wanted &= RUNS.c.agent == agent
        last = func.max(RUNS.c.created)
        busy = func.count() - func.count(RUNS.c.ended)
        query = (
            select(RUNS.c.agent, RUNS.c.session, RUNS.c.created_by, func.min(RUNS.c.created), last, func.count(), busy)
            .where(wanted)
            .group_by(RUNS.c.agent, RUNS.c.session, RUNS.c.created_by)
            .order_by(last.desc())
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [
            SessionInfo(name, agent_, user, created, used, runs, bool(open_))
            for agent_, name, user, created, used, runs, open_ in rows
        ]

    async def newest(self, agent: str, session: str, by: str) -> str | None:
        """The session's last run."""
        query = select(RUNS.c.id).where(_of(agent, session, by)).order_by(RUNS.c.created.desc(), RUNS.c.id.desc())
        async with self._database.read() as connection:
            return (await connection.execute(query.limit(1))).scalar_one_or_none()

    async def delete(self, agent: str, session: str, by: str) -> int:
        """Delete the session's runs and those below them, with their logs; how many requests it had.

        Raises `Conflict` while one has not ended.
        """
        async with self._database.write() as connection:
            runs = (await connection.execute(select(RUNS.c.id, RUNS.c.ended).where(_of(agent, session, by)))).all()
            open_ = [run.id for run in runs if run.ended is None]
            if open_:
                raise Conflict(f"the session {session!r} still works on a request", hint=f"`llmctl kill {open_[0]}`")
            level = [run.id for run in runs]
            while level:  # a run is below one other, which was there before it: this comes to an end
                below: list[str] = []
                for start in range(0, len(level), 500):
                    part = level[start : start + 500]
                    for run in await connection.execute(select(RUNS.c.id, RUNS.c.ended).where(RUNS.c.parent.in_(part))):
                        if run.ended is None:  # what was deleted before comes back with the transaction
                            raise Conflict(f"the run {run.id} below it goes on", hint=f"`llmctl kill {run.id}`")
                        below.append(run.id)
                    await connection.execute(delete(EVENTS).where(EVENTS.c.run.in_(part)))
                    await connection.execute(delete(RUNS).where(RUNS.c.id.in_(part)))
                level = below
        return len(runs)


def _of(agent: str, session: str, by: str) -> ColumnElement[bool]:
    return (RUNS.c.agent == agent) & (RUNS.c.session == session) & (RUNS.c.created_by == by)

"""Runs and their logs. The log is the truth; a run's row is what finding and claiming need of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UnaryExpression,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from llmagentos.api.runs import Data, RunEvent, RunSort, RunState, RunSummary
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict
from llmagentos.storage.database import METADATA, Database

_ACTIVE = tuple(state.value for state in RunState if not state.ended)
_PRUNE_BATCH = 500

RUNS = Table(
    "runs",
    METADATA,
    Column("id", String(12), primary_key=True),
    Column("agent", String(63), nullable=False, index=True),
    Column("host", String(80), nullable=False),  # who may claim it: "server" or "module:<name>"
    Column("state", String(20), nullable=False),
    Column("seq", Integer, nullable=False),  # of the last event
    Column("fence", Integer, nullable=False),  # of the last claim; 0 before the first
    Column("holder", String(200), nullable=False),  # of the last claim; empty before the first and when released
    Column("session", String(64)),
    Column("created_by", String(300), nullable=False),
    Column("created", Float, nullable=False, index=True),
    Column("ended", Float, index=True),
    Column("priority", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),  # in and out, so far
    Column("parent", String(12), index=True),  # the run that asked
    Column("summary", Text, nullable=False),
    Index("ix_runs_state", "state", "created"),
    Index("ix_runs_claim", "host", "state", "created"),
    Column("writes", String(400), unique=True),  # the session, while the run has not ended: one writer at a time
    Index("ix_runs_session", "created_by", "session", "agent"),
)

EVENTS = Table(
    "run_events",
    METADATA,
    Column("run", String(12), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("data", Text, nullable=False),
)


_ORDERS: Mapping[RunSort, tuple[UnaryExpression[Any] | Column[Any], ...]] = {
    RunSort.NEWEST: (RUNS.c.created.desc(),),
    RunSort.OLDEST: (RUNS.c.created,),
    RunSort.PRIORITY: (RUNS.c.priority, RUNS.c.created.desc()),
    RunSort.TOKENS: (RUNS.c.tokens.desc(), RUNS.c.created.desc()),
    RunSort.AGENT: (RUNS.c.agent, RUNS.c.created.desc()),
    RunSort.STATE: (RUNS.c.state, RUNS.c.created.desc()),
}


class SessionTaken(Conflict):
    """Another run of the session was created at the same time."""

    code = "session_busy"


class RunExists(Conflict):
    """A run with this id was created before."""

    code = "run_exists"


class RunMoved(Conflict):
    """The run's log is not where the writer believed it to be."""

    code = "run_moved"


@dataclass(frozen=True, slots=True)
class RunRow:
    """What finding and claiming need of a run."""

    id: str
    agent: str
    host: str
    state: RunState
    seq: int
    fence: int
    holder: str


class RunRecords:
    """Queries over runs and their events."""

    def __init__(self, database: Database, clock: Clock, *, days: float = 30.0) -> None:
        self._database = database
        self._clock = clock
        self._days = days

    async def create(self, summary: RunSummary, host: str, events: Sequence[RunEvent]) -> None:
        """A new run with its first events.

        Raises `RunExists`, or `SessionTaken` while its session has one that has not ended.
        """
        try:
            await self._create(summary, host, events)
        except IntegrityError:
            if await self.row(summary.id) is not None:
                raise RunExists(f"there is a run {summary.id!r} already") from None
            if summary.session is None:
                raise
            raise SessionTaken(f"the session {summary.session!r} still works on its last request") from None

    async def _create(self, summary: RunSummary, host: str, events: Sequence[RunEvent]) -> None:
        async with self._database.write() as connection:
            await connection.execute(
                insert(RUNS).values(
                    id=summary.id,
                    agent=summary.agent,
                    host=host,
                    state=summary.state.value,
                    seq=events[-1].seq,
                    fence=0,
                    holder="",
                    session=summary.session,
                    created_by=summary.created_by[:300],
                    writes=_session(summary),
                    created=summary.created,
                    ended=summary.ended,
                    parent=summary.parent,
                    **_shown(summary),
                )
            )
            await connection.execute(insert(EVENTS), [_event_values(summary.id, event) for event in events])

    async def append(
        self, summary: RunSummary, events: Sequence[RunEvent], *, fence: int, holder: str | None = None
    ) -> None:
        """Add `events`, which must follow on the stored ones, and put `summary` in force, both or neither.

        `fence` is the log's fence after the events; `holder` changes with a claim. Raises `RunMoved` when
        somebody else wrote first or a later claim exists.
        """
        changes: dict[str, object] = {
            "state": summary.state.value,
            "seq": events[-1].seq,
            "fence": fence,
            "ended": summary.ended,
            **_shown(summary),
        }
        if summary.ended is not None:
            changes["writes"] = None
        if holder is not None:
            changes["holder"] = holder[:200]
        unmoved = (RUNS.c.id == summary.id) & (RUNS.c.seq == events[0].seq - 1) & (RUNS.c.fence <= fence)
        async with self._database.write() as connection:
            done = await connection.execute(update(RUNS).where(unmoved).values(**changes))
            if done.rowcount != 1:
                raise RunMoved(f"somebody else has written to the run {summary.id}", run=summary.id)
            await connection.execute(insert(EVENTS), [_event_values(summary.id, event) for event in events])

    async def released(self, run: str, fence: int) -> None:
        """The claim with `fence` was given up: anybody may take the run at once, after a restart too."""
        async with self._database.write() as connection:
            await connection.execute(update(RUNS).where(RUNS.c.id == run, RUNS.c.fence == fence).values(holder=""))

    async def row(self, run: str) -> RunRow | None:
        """The run with exactly this id."""
        found = await self._rows(RUNS.c.id == run)
        return found[0] if found else None

    async def find(self, prefix: str, *, limit: int = 3) -> list[str]:
        """Ids that begin with `prefix`, which is taken literally."""
        query = select(RUNS.c.id).where(RUNS.c.id.startswith(prefix, autoescape=True)).limit(limit)
        async with self._database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def claimable(self, host: str, agents: Sequence[str] | None, *, queued: int = 20) -> list[RunRow]:
        """Runs that `host` may carry on: all that are running (most of them leased), then the first `queued` ones.

        `agents` narrows to these names.
        """
        wanted = RUNS.c.host == host
        if agents is not None:
            wanted &= RUNS.c.agent.in_(agents)
        return [
            *await self._rows(wanted & (RUNS.c.state == RunState.RUNNING.value)),
            *await self._rows(wanted & (RUNS.c.state == RunState.QUEUED.value), limit=queued),
        ]

    async def unended(self, *, agent: str | None = None) -> list[RunRow]:
        """Every run that has not ended, oldest first."""
        wanted = RUNS.c.state.in_(_ACTIVE)
        return await self._rows(wanted if agent is None else wanted & (RUNS.c.agent == agent))

    async def children(self, run: str) -> list[RunRow]:
        """The runs that `run` asked for and that have not ended, oldest first."""
        return await self._rows((RUNS.c.parent == run) & RUNS.c.state.in_(_ACTIVE))

    async def unended_count(self) -> int:
        """How many runs have not ended."""
        query = select(func.count()).select_from(RUNS).where(RUNS.c.state.in_(_ACTIVE))
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one()

    async def busy(self, agent: str, session: str, by: str) -> str | None:
        """A run of this session of `by` that has not ended."""
        wanted = (RUNS.c.session == session) & (RUNS.c.agent == agent) & (RUNS.c.created_by == by)
        wanted &= RUNS.c.state.in_(_ACTIVE)
        found = await self._rows(wanted, limit=1)
        return found[0].id if found else None

    async def _rows(self, where: ColumnElement[bool], *, limit: int | None = None) -> list[RunRow]:
        names = ("id", "agent", "host", "state", "seq", "fence", "holder")
        columns = [RUNS.c[name] for name in names]
        query = select(*columns).where(where).order_by(RUNS.c.created, RUNS.c.id).limit(limit)
        async with self._database.read() as connection:
            return [
                RunRow(row[0], row[1], row[2], RunState(row[3]), row[4], row[5], row[6])
                for row in (await connection.execute(query)).all()
            ]

    async def highest_fence(self) -> int:
        """The highest fencing token ever stored, 0 when there is none."""
        async with self._database.read() as connection:
            return (await connection.execute(select(func.max(RUNS.c.fence)))).scalar() or 0

    async def events(self, run: str, *, after: int = 0, limit: int | None = None) -> list[RunEvent]:
        """A run's log from the event after `after`."""
        query = (
            select(EVENTS.c.seq, EVENTS.c.at, EVENTS.c.data)
            .where(EVENTS.c.run == run, EVENTS.c.seq > after)
            .order_by(EVENTS.c.seq)
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [RunEvent(row.seq, row.at, msgspec.json.decode(row.data, type=Data)) for row in rows]

    async def newest(
        self,
        *,
        ended: bool,
        agent: str | None = None,
        session: str | None = None,
        by: str | None = None,
        state: RunState | None = None,
        sort: RunSort = RunSort.NEWEST,
        limit: int = 100,
        offset: int = 0,
        before: str | None = None,
    ) -> list[RunSummary]:
        """Summaries in the order of `sort`; with `ended` also of runs that are over, with `state` only those in it.

        With `before`, the id of a run, only of runs that are older: none when there is no such run any more.
        """
        query = select(RUNS.c.summary).order_by(*_ORDERS[sort], RUNS.c.id.desc()).limit(limit).offset(offset)
        if state is not None:
            query = query.where(RUNS.c.state == state.value)
        elif not ended:
            query = query.where(RUNS.c.state.in_(_ACTIVE))
        if agent is not None:
            query = query.where(RUNS.c.agent == agent)
        if session is not None:
            query = query.where(RUNS.c.session == session)
        if by is not None:
            query = query.where(RUNS.c.created_by == by)
        if before is not None:
            mark = select(RUNS.c.created).where(RUNS.c.id == before).scalar_subquery()
            query = query.where(RUNS.c.created <= mark, or_(RUNS.c.created < mark, RUNS.c.id < before))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).scalars().all()
        return [msgspec.json.decode(text, type=RunSummary) for text in rows]

    async def counts(self) -> dict[str, int]:
        """How many runs are stored, by state."""
        query = select(RUNS.c.state, func.count()).group_by(RUNS.c.state)
        async with self._database.read() as connection:
            return {str(state): int(count) for state, count in (await connection.execute(query)).all()}

    async def prune(self) -> int:
        """Delete runs that ended more than the retention ago; how many."""
        limit = self._clock.time() - self._days * 86_400
        total = 0
        while True:
            old = select(RUNS.c.id).where(RUNS.c.ended < limit).limit(_PRUNE_BATCH)
            async with self._database.write() as connection:
                ids = list((await connection.execute(old)).scalars())
                await connection.execute(delete(EVENTS).where(EVENTS.c.run.in_(ids)))
                await connection.execute(delete(RUNS).where(RUNS.c.id.in_(ids)))
            total += len(ids)
            if len(ids) < _PRUNE_BATCH:
                return total


def _session(summary: RunSummary) -> str | None:
    return f"{summary.agent}/{summary.session}/{summary.created_by[:270]}" if summary.session is not None else None


def _shown(summary: RunSummary) -> dict[str, object]:
    """What lists show and sort by."""
    tokens = summary.tokens_in + summary.tokens_out
    return {"priority": summary.priority, "tokens": tokens, "summary": _json(summary)}


def _event_values(run: str, event: RunEvent) -> dict[str, object]:
    return {"run": run, "seq": event.seq, "at": event.at, "data": _json(event.data)}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()

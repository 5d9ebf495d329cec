"""Who asks for a run: the session that it belongs to and what the agent may know of it, the run that asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from llmagentos.agents.compaction import bounded
from llmagentos.agents.log import Log
from llmagentos.agents.records import Records
from llmagentos.agents.states import InvalidTransition, RunEnded, RunPaused
from llmagentos.api.runs import RunState, Turn
from llmagentos.core.errors import Conflict, Forbidden

MAX_DEPTH = 8
"""Runs that ask for runs that ask for runs: no deeper than this."""
Load = Callable[[str], Awaitable[Log]]
"""The state of a run. Raises `NotFound`."""


class SessionBusy(Conflict):
    """The session's last request has not been answered yet."""

    code = "session_busy"


class Before(NamedTuple):
    """What a run has before itself: a summary of the session's older part, the turns after that, and the last run."""

    summary: str
    turns: list[Turn]
    run: str | None


NEW = Before("", [], None)
"""The beginning of a session."""


async def before(records: Records, load: Load, agent: str, session: str, by: str) -> Before:
    """What a new run of the session has before itself.

    Raises `SessionBusy` while the last run has not ended. Sessions of different callers are different ones.
    """
    if (busy := await records.busy(agent, session, by)) is not None:
        raise SessionBusy(
            f"the session {session!r} still works on its last request",
            hint=f"wait for it, or `llmctl kill {busy}`",
            run=busy,
        )
    last = await records.newest(ended=True, agent=agent, session=session, by=by, limit=1)
    if not last:
        return NEW
    summary, turns = (await load(last[0].id)).after
    return Before(*bounded(summary, turns), last[0].id)


async def caller_of(load: Load, run: str) -> str:
    """Who asked for the run, or for the run that asked for it."""
    request = (await load(run)).request
    for _ in range(MAX_DEPTH):
        if request.parent is None:
            break
        request = (await load(request.parent)).request
    return request.by


async def asking(load: Load, parent: str, by: str) -> Log:
    """The state of the run `parent`, which asks for another one in the name of `by`.

    Raises `RunEnded`, `RunPaused` or `InvalidTransition` when it does not run, `Conflict` when it is nested too deep,
    and `Forbidden` when it acts for somebody else: what is below it has that person's memory and permits.
    """
    state = above = await load(parent)
    if (caller := await caller_of(load, parent)) != by:
        raise Forbidden(f"the run {parent} acts for {caller}: {by} cannot ask for runs below it", run=parent)
    if state.state is not RunState.RUNNING:
        kind = RunEnded if state.ended_at is not None else RunPaused if state.paused else InvalidTransition
        raise kind(f"the run {parent} does not run, so it cannot ask for another one", run=parent)
    for _ in range(MAX_DEPTH):
        if above.request.parent is None:
            return state
        above = await load(above.request.parent)
    raise Conflict(f"runs ask for runs more than {MAX_DEPTH} deep", run=parent)

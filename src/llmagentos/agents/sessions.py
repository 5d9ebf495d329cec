"""Who asks for a run: the session that it belongs to and what the agent may know of it, the run that asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from llmagentos.agents.log import Log
from llmagentos.agents.records import Records
from llmagentos.agents.states import InvalidTransition, RunEnded, RunPaused
from llmagentos.api.runs import RunState, Turn
from llmagentos.core.errors import Conflict

HISTORY_TURNS = 8
HISTORY_CHARACTERS = 4000
MAX_DEPTH = 8
"""Runs that ask for runs that ask for runs: no deeper than this."""
Load = Callable[[str], Awaitable[Log]]
"""The state of a run. Raises `NotFound`."""


class SessionBusy(Conflict):
    """The session's last request has not been answered yet."""

    code = "session_busy"


async def history(records: Records, load: Load, agent: str, session: str) -> list[Turn]:
    """The session's last answered requests, oldest first, within the limits."""
    turns: list[Turn] = []
    left = HISTORY_CHARACTERS
    for summary in await records.newest(ended=True, agent=agent, session=session, limit=HISTORY_TURNS):
        state = await load(summary.id)
        if state.answer is None:
            continue
        left -= len(state.input) + len(state.answer.text)
        if left < 0:
            break
        turns.append(Turn(state.input, state.answer.text))
    return turns[::-1]


async def caller_of(load: Load, run: str) -> str:
    """Who asked for the run, or for the run that asked for it."""
    request = (await load(run)).request
    for _ in range(MAX_DEPTH):
        if request.parent is None:
            break
        request = (await load(request.parent)).request
    return request.by


async def asking(load: Load, parent: str) -> Log:
    """The state of the run `parent`, which asks for another one.

    Raises `RunEnded`, `RunPaused` or `InvalidTransition` when it does not run, `Conflict` when it is nested too deep.
    """
    state = above = await load(parent)
    if state.state is not RunState.RUNNING:
        kind = RunEnded if state.ended_at is not None else RunPaused if state.paused else InvalidTransition
        raise kind(f"the run {parent} does not run, so it cannot ask for another one", run=parent)
    for _ in range(MAX_DEPTH):
        if above.request.parent is None:
            return state
        above = await load(above.request.parent)
    raise Conflict(f"runs ask for runs more than {MAX_DEPTH} deep", run=parent)

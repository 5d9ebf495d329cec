"""What an agent may know of the session in which it is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from llmagentos.agents.log import Log
from llmagentos.agents.records import Records
from llmagentos.api.runs import Turn
from llmagentos.core.errors import Conflict

HISTORY_TURNS = 8
HISTORY_CHARACTERS = 4000


class SessionBusy(Conflict):
    """The session's last request has not been answered yet."""

    code = "session_busy"


async def history(records: Records, load: Callable[[str], Awaitable[Log]], agent: str, session: str) -> list[Turn]:
    """The session's last answered requests, oldest first, within the limits; `load` gives the state of a run."""
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

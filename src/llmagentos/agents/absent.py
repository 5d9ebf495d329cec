"""What runs wait for before they go on: tools of systems that are away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from llmagentos.agents.log import Log
from llmagentos.agents.states import RunPaused
from llmagentos.api.runs import RunEvent
from llmagentos.core.errors import Unavailable

T = TypeVar("T")
_MOST = 10_000


class Absent:
    """Of each run that waits so, what is away. `state_of` gives a run's state."""

    def __init__(self, state_of: Callable[[str], Awaitable[Log]]) -> None:
        self._state_of = state_of
        self._told: OrderedDict[str, str] = OrderedDict()

    async def watched(self, run: str, looking: Awaitable[T]) -> T:
        """What `looking` finds for `run`; when that is away it is noted, until it is there or the run's log grows.

        Raises `RunPaused` when the run is paused by then: calls that were interrupted are not made again meanwhile.
        """
        try:
            found = await looking
        except Unavailable as error:
            await self._require_going(run)
            self._told[run] = error.message
            while len(self._told) > _MOST:
                self._told.popitem(last=False)
            raise
        self._told.pop(run, None)
        await self._require_going(run)
        return found

    async def _require_going(self, run: str) -> None:
        if (await self._state_of(run)).paused is not None:
            raise RunPaused(f"the run {run} is paused", run=run)

    def changed(self, run: str, _: Log, events: Sequence[RunEvent]) -> None:
        """The run's log has `events`: it goes on, or has ended."""
        self._told.pop(run, None)

    def told(self) -> Mapping[str, str]:
        """What is away, by run."""
        return self._told

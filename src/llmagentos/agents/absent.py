"""What runs wait for before they go on: tools of systems that are away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from llmagentos.agents.log import Log
from llmagentos.api.runs import RunEvent
from llmagentos.core.errors import Unavailable

T = TypeVar("T")
_MOST = 10_000


class Absent:
    """Of each run that waits so, what is away."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, str] = OrderedDict()

    async def watched(self, run: str, looking: Awaitable[T]) -> T:
        """What `looking` finds for `run`; when that is away it is noted, until it is there or the run's log grows."""
        try:
            found = await looking
        except Unavailable as error:
            self._told[run] = error.message
            while len(self._told) > _MOST:
                self._told.popitem(last=False)
            raise
        self._told.pop(run, None)
        return found

    def changed(self, run: str, _: Log, events: Sequence[RunEvent]) -> None:
        """The run's log has `events`: it goes on, or has ended."""
        self._told.pop(run, None)

    def told(self) -> Mapping[str, str]:
        """What is away, by run."""
        return self._told

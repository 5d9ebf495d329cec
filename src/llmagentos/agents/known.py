"""The states of the runs that were last asked for, so that a log is not read and folded again for every event."""

from __future__ import annotations

from collections import OrderedDict

from llmagentos.agents.log import Log


class Known:
    """Up to `most` states; the one that was not asked for the longest goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._states: OrderedDict[str, Log] = OrderedDict()

    def get(self, run: str) -> Log | None:
        """The run's state, when it is known."""
        return self._states.get(run)

    def put(self, run: str, state: Log) -> None:
        """Remember the run's state, unless a later one is known: a reader may be slower than the writer."""
        if (known := self._states.get(run)) is not None and known.seq > state.seq:
            return
        self._states[run] = state
        self._states.move_to_end(run)
        if len(self._states) > self._most:
            self._states.popitem(last=False)

    def drop(self, run: str) -> None:
        """Forget the run."""
        self._states.pop(run, None)

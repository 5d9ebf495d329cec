"""Following a run's log as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from llmagentos.agents.log import Log
from llmagentos.api.runs import Answered, Exited, Failed, Killed, RunDelta, RunEvent
from llmagentos.core.errors import NotFound
from llmagentos.core.events import LAGGED, Hub


class Events(Protocol):
    """The stored log from the event after `after`."""

    async def __call__(self, run: str, *, after: int) -> list[RunEvent]: ...


async def follow(
    hub: Hub, events: Events, load: Callable[[str], Awaitable[Log]], run: str, after: int
) -> AsyncIterator[RunEvent | RunDelta]:
    """The log from the event after `after`, live, until the run has ended or the server stops.

    `load` gives the run's state. Raises `NotFound`.
    """
    with hub.subscribe(run_topic(run)) as subscription:
        fresh = True
        while True:
            if fresh:
                for event in await events(run, after=after):
                    after = event.seq
                    yield event
                    if is_end(event):
                        return
                if not after:
                    raise NotFound(f"there is no run {run!r}")
                # The end may lie before `after`: nothing will ever come.
                if (await load(run)).ended_at is not None and not await events(run, after=after):
                    return
            try:
                item = await subscription.next()
            except StopAsyncIteration:
                return
            fresh = item is LAGGED
            if isinstance(item, RunDelta):
                yield item
            elif isinstance(item, RunEvent) and item.seq > after:
                after = item.seq
                yield item
                if is_end(item):
                    return


def is_end(event: RunEvent) -> bool:
    """Whether nothing follows on `event`."""
    return isinstance(event.data, Answered | Failed | Exited | Killed)


def run_topic(run: str) -> str:
    """The hub's topic of one run's events."""
    return f"run:{run}"


def claims_topic(host: str) -> str:
    """The hub's topic that wakes `host` when there is a run for it."""
    return f"claims:{host}"

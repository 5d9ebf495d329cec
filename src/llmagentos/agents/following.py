"""Following a run's log as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llmagentos.agents.log import Log
from llmagentos.api.runs import (
    Answered,
    Claimed,
    Exited,
    Failed,
    Killed,
    ModelCalled,
    ModelReplied,
    Purpose,
    RunDelta,
    RunEvent,
)
from llmagentos.core.errors import NotFound
from llmagentos.core.events import LAGGED, Hub


class Events(Protocol):
    """The stored log from the event after `after`."""

    async def __call__(self, run: str, *, after: int) -> list[RunEvent]: ...


MOST_DRAFT = 200_000
"""Characters of an answer that are kept while it is written; of a longer one a late follower hears only what comes."""


@dataclass(slots=True)
class Draft:
    """An answer that is being written: `call` is the event that began it, `seq` the last one of its run."""

    seq: int
    call: int
    pieces: list[str] = field(default_factory=list)
    size: int = 0

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self.pieces)


class Drafts:
    """The answers that are being written. Who begins to follow a run in the middle of one has it from its beginning."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._drafts: dict[str, Draft] = {}

    def piece(self, run: str, text: str) -> None:
        """A piece of an answer of `run` was generated."""
        if (draft := self._drafts.get(run)) is not None:
            draft.pieces.append(text)
            draft.size += len(text)
            if draft.size > MOST_DRAFT:
                self.drop(run)
        self._hub.publish(run_topic(run), RunDelta(run, text))

    def changed(self, run: str, _: Log, events: Sequence[RunEvent]) -> None:
        """The run's log has these new events."""
        for event in events:
            if isinstance(event.data, ModelCalled) and event.data.purpose is Purpose.ANSWER:
                self._drafts[run] = Draft(event.seq, event.seq)
            elif is_end(event) or isinstance(event.data, ModelCalled | ModelReplied | Claimed):
                self.drop(run)
            elif (draft := self._drafts.get(run)) is not None:
                draft.seq = event.seq

    def now(self, run: str) -> Draft | None:
        """The answer that is being written in `run`; what is told of the run after this call follows on it."""
        draft = self._drafts.get(run)
        return Draft(draft.seq, draft.call, [draft.text]) if draft is not None else None

    def drop(self, run: str) -> None:
        """Forget what there is of an answer of `run`."""
        self._drafts.pop(run, None)


async def follow(
    hub: Hub, drafts: Drafts, events: Events, load: Callable[[str], Awaitable[Log]], run: str, after: int
) -> AsyncIterator[RunEvent | RunDelta]:
    """The log from the event after `after`, live, until the run has ended or the server stops.

    `load` gives the run's state. Raises `NotFound`.
    """
    with hub.subscribe(run_topic(run)) as subscription:
        draft = drafts.now(run)
        if draft is not None:
            for begun in _begun(run, draft, await events(run, after=after)):
                yield begun
            after = max(after, draft.seq)
        fresh = draft is None
        while True:
            if fresh:
                for event in await events(run, after=after):
                    after = event.seq
                    yield event
                    if is_end(event):
                        return
                if await _over(events, load, run, after):
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


async def _over(events: Events, load: Callable[[str], Awaitable[Log]], run: str, after: int) -> bool:
    """Whether the run's end lies before `after`, so that nothing will ever come. Raises `NotFound`."""
    if not after:
        raise NotFound(f"there is no run {run!r}")
    return (await load(run)).ended_at is not None and not await events(run, after=after)


def _begun(run: str, draft: Draft, events: Sequence[RunEvent]) -> list[RunEvent | RunDelta]:
    """What was told before, by the log's `events`. Later ones have their turn after the pieces before them."""
    text = [RunDelta(run, draft.text, begins=True)] if draft.text else []
    return [*(event for event in events if event.seq <= draft.seq), *text]


def is_end(event: RunEvent) -> bool:
    """Whether nothing follows on `event`."""
    return isinstance(event.data, Answered | Failed | Exited | Killed)


def run_topic(run: str) -> str:
    """The hub's topic of one run's events."""
    return f"run:{run}"


def claims_topic(host: str) -> str:
    """The hub's topic that wakes `host` when there is a run for it."""
    return f"claims:{host}"

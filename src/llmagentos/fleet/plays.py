"""What the nodes of a job whose plays span them tell each other: kept, put into one order, handed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmagentos.api.plays import Kept, Shared
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict
from llmagentos.core.events import Hub
from llmagentos.fleet.job_news import require_there
from llmagentos.storage.shares import ShareRecords


class Plays:
    """All jobs' shares. Who may call is for the caller to check."""

    def __init__(self, records: ShareRecords, hub: Hub, clock: Clock) -> None:
        self._records = records
        self._hub = hub
        self._clock = clock

    async def share(self, node: str, job: int, first_seq: int, shares: Sequence[dict[str, Any]]) -> Kept:
        """Keep what `node` tells the others. Raises `Conflict` once the job has ended on it."""
        next_seq = await self._records.append(job, node, first_seq, shares)
        if next_seq is None:
            raise Conflict(f"job {job} has ended on node {node!r}")
        if shares:
            self._hub.publish(f"shares:{job}", next_seq)
        return Kept(next_seq)

    async def shared(self, node: str, job: int, *, after: int, gone: int, wait: float) -> Shared:
        """Shares after `after`, waiting up to `wait` seconds for one, or for more than `gone` nodes to have ended.

        Raises `Unauthenticated` once `node`, which asks, is revoked.
        """
        end = self._clock.monotonic() + wait
        with self._hub.subscribe(f"shares:{job}", "jobs", f"queue:{node}") as wakes:
            while True:
                found = await self._records.after(job, after)
                left = end - self._clock.monotonic()
                if found.shares or len(found.gone) > gone or left <= 0:
                    return found
                try:
                    require_there(node, await wakes.next(left))
                except (TimeoutError, StopAsyncIteration):
                    return found

    async def prune(self) -> None:
        """Delete what nobody needs any more."""
        await self._records.prune()

"""What the nodes of a job whose plays span them tell each other: kept, put into one order, handed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmagentos.api.plays import Kept, Shared
from llmagentos.core.clock import Clock
from llmagentos.core.events import Hub
from llmagentos.fleet.job_news import require_there
from llmagentos.fleet.job_queues import lease_lost
from llmagentos.fleet.looks import Looks
from llmagentos.storage.shares import ShareRecords


class Plays:
    """All jobs' shares. A node has them while it holds the job."""

    def __init__(self, records: ShareRecords, hub: Hub, clock: Clock, *, several: bool = False) -> None:
        """`several`: other servers may work on the same database."""
        self._looks = Looks(several=several)
        self._records = records
        self._hub = hub
        self._clock = clock

    async def share(self, node: str, job: int, fence: int, first_seq: int, shares: Sequence[dict[str, Any]]) -> Kept:
        """Keep what `node` tells the others. Raises `LeaseLost` unless it holds the job with this token."""
        next_seq = await self._records.append(job, node, fence, first_seq, shares)
        if next_seq is None:
            raise lease_lost(job, fence)
        if shares:
            self._hub.publish(f"shares:{job}", next_seq)
        return Kept(next_seq)

    async def shared(self, node: str, job: int, fence: int, *, after: int, gone: int, wait: float) -> Shared:
        """Shares after `after`, waiting up to `wait` seconds for one, or for more than `gone` nodes to have ended.

        Raises `LeaseLost` unless `node`, which asks, holds the job with this token, `Unauthenticated` once it is
        revoked.
        """
        end = self._clock.monotonic() + wait
        topics = (f"shares:{job}", "jobs", f"queue:{node}")
        with self._hub.subscribe(*topics) as wakes, self._looks.waiting():
            while True:
                found = await self._records.after(job, node, fence, after)
                if found is None:
                    raise lease_lost(job, fence)
                left = end - self._clock.monotonic()
                if found.shares or len(found.gone) > gone or left <= 0:
                    return found
                try:
                    require_there(node, await self._looks.next(wakes, left))
                except (TimeoutError, StopAsyncIteration):
                    return found

    async def prune(self) -> None:
        """Delete what nobody needs any more."""
        await self._records.prune()

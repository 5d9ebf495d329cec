"""Every change of a job goes through here: made in one transaction, then told to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmagentos.api.jobs import HostState, Job
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.events import Hub
from llmagentos.fleet.job_news import SMALL, Announcer, JobNews
from llmagentos.fleet.job_states import ENDS
from llmagentos.fleet.job_views import conclude, whole
from llmagentos.storage.gathering import Gathered
from llmagentos.storage.host_changes import HostChanged, HostWish
from llmagentos.storage.job_changes import Changed, Changes, Seen
from llmagentos.storage.job_tables import JobRow
from llmagentos.storage.jobs import JobRecords

Decide = Callable[[Seen], Changes]

_log = log.get(__name__)


class JobWriter:
    """Changes jobs. `away` says whether a node is not answering."""

    def __init__(self, records: JobRecords, hub: Hub, clock: Clock, *, away: Callable[[str], bool]) -> None:
        self._records = records
        self._hub = hub
        self._clock = clock
        self._away = away
        self.announcer = Announcer(hub)
        self._on_node = Gathered(self._together)

    async def change(self, job: int, by: str, decide: Decide) -> Job:
        """What `decide` makes of the job as it stands; raises what it raises, and then nothing has changed."""
        return whole((await self._change(job, by, decide)).seen, {}, self._away)

    async def _change(self, job: int, by: str, decide: Decide) -> Changed:
        made: list[Changes] = []

        def keep(seen: Seen) -> Changes:
            made.append(decide(seen))
            return made[-1]

        done = await self._records.changes.change(job, by, keep, conclude)
        for record in done.records:
            self._hub.publish(f"job:{job}", record)
        queued = [node for node, values in made[-1].hosts.items() if values.get("state") == "queued"]
        self.announcer.wake(queued, job)
        await self._forget(job, ended=done.ended)
        self._tell(done.seen.row, now=True, ended=done.ended)
        return done

    async def change_on(self, wish: HostWish) -> HostChanged:
        """What `wish` wants, in a transaction with what other nodes want now. Raises what it raises."""
        done = await self._on_node(wish)
        for record in done.records:
            self._hub.publish(f"job:{wish.job}", record)
        await self._forget(wish.job, ended=done.ended)
        if (done.before.state, done.before.attempt) != (done.host.state, done.host.attempt):
            self._tell(done.row, now=done.nodes <= SMALL, ended=done.ended)
        return done

    async def _together(self, wishes: Sequence[HostWish]) -> list[HostChanged | Exception]:
        return await self._records.host_changes.change(wishes, conclude)

    async def _forget(self, job: int, *, ended: bool) -> None:
        """However a job ended, its secrets and what its nodes told each other go with it."""
        if ended:
            await self._records.shares.forget(job)

    def _tell(self, row: JobRow, *, now: bool, ended: bool) -> None:
        self.announcer.tell(JobNews(row.id, row.state, ended), now=now)
        if ended and row.ended is not None:
            metrics.JOBS_ENDED.labels(row.state).inc()
            metrics.JOB_DURATION.observe(row.ended - row.created)
            with log.bind(job_id=str(row.id)):
                _log.info("job ended", state=row.state, exit_code=row.exit_code)

    def entering(self, state: HostState, **values: Any) -> dict[str, Any]:
        """The values of a host that comes into `state`."""
        return {"state": state, **values} | ({"ended": self._clock.time()} if state in ENDS else {})

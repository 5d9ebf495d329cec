"""Every change of a job goes through here: made in one transaction, then told to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmagentos.api.jobs import HostState, Job
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.events import Hub
from llmagentos.fleet.job_states import ENDS
from llmagentos.fleet.job_views import conclude, whole
from llmagentos.storage.job_changes import Changes, Seen
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

    async def change(self, job: int, by: str, decide: Decide) -> Job:
        """What `decide` makes of the job as it stands; raises what it raises, and then nothing has changed."""
        made: list[Changes] = []

        def keep(seen: Seen) -> Changes:
            made.append(decide(seen))
            return made[-1]

        done = await self._records.changes.change(job, by, keep, conclude)
        row = done.seen.row
        changed = whole(done.seen, {}, self._away)
        for record in done.records:
            self._hub.publish(f"job:{job}", record)
        for node, values in made[-1].hosts.items():
            if values.get("state") == "queued":
                self._hub.publish(f"queue:{node}", job)
        self._hub.publish("jobs", changed.summary)
        self._hub.publish(f"job:{job}", changed)
        if done.ended and row.ended is not None:
            metrics.JOBS_ENDED.labels(row.state).inc()
            metrics.JOB_DURATION.observe(row.ended - row.created)
            with log.bind(job_id=str(job)):
                _log.info("job ended", state=row.state, exit_code=row.exit_code)
        return changed

    def entering(self, state: HostState, **values: Any) -> dict[str, Any]:
        """The values of a host that comes into `state`."""
        return {"state": state, **values} | ({"ended": self._clock.time()} if state in ENDS else {})

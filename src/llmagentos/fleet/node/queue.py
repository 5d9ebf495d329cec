"""The node's own queue: one job after the other, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmagentos.api import jobs
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import NodeJob
from llmagentos.core import log, metrics, tracing
from llmagentos.core.errors import Conflict, NotFound
from llmagentos.fleet.node import jobdir
from llmagentos.fleet.node.insist import insist
from llmagentos.fleet.node.vault import Unseal
from llmagentos.fleet.node.warm import Warm
from llmagentos.fleet.node.work import Work

KEEP = 20
"""Job directories kept after their end, for whoever looks into a failure."""
DISK_S = 5.0
_log = log.get(__name__)


class Queue:
    """Works the queue until cancelled. A playbook that runs then runs on, and is found again."""

    def __init__(
        self,
        client: ApiClient,
        directory: Path,
        *,
        home: Path,
        variables: Mapping[str, Any],
        warm: Warm | None = None,
        unseal: Unseal | None = None,
    ) -> None:
        self._client = client
        self._directory = directory
        self._home = home
        self._variables = variables
        self._warm = warm
        self._unseal = unseal
        self.job: int | None = None
        """The job at hand."""
        self._settled = False

    async def run(self) -> None:
        """Claim and work, for ever. Raises `Unauthenticated` once the node was removed."""
        jobdir.prune(self._directory, KEEP)
        while True:
            claimed = await insist(lambda: jobs.claim(self._client), what="claim")
            if not self._settled:
                await self._settle(claimed.job)
            if claimed.job is None:
                continue
            self.job = claimed.job.job
            with log.bind(job_id=str(self.job)), tracing.span("job", job=self.job, playbook=claimed.job.playbook):
                await self._work(claimed.job, claimed.lease_s)
            self.job = None
            jobdir.prune(self._directory, KEEP)

    async def _settle(self, job: NodeJob | None) -> None:
        """Nothing but `job` is this node's any more. Again after the next claim where something runs, or cannot go."""
        held = None if job is None else jobdir.directory(self._directory, job.job, job.attempt).root
        try:
            self._settled = await asyncio.to_thread(jobdir.settle, self._directory, held)
        except OSError as error:
            _log.error("what jobs left cannot be removed yet", error=str(error))

    async def _work(self, job: NodeJob, lease_s: float) -> None:
        directory = jobdir.directory(self._directory, job.job, job.attempt)
        _log.info("job claimed", resumed=job.resumed, next_seq=job.next_seq)
        work = Work(
            self._client,
            job,
            directory,
            home=str(self._home),
            variables=self._variables,
            warm=self._warm,
            unseal=self._unseal,
        )
        try:
            with metrics.NODE_JOB_SECONDS.time():
                await work.run(lease_s)
        except Conflict as error:
            _log.warning("lease lost; claiming again", error=str(error))
        except NotFound as error:
            _log.error("the server no longer knows the job", error=str(error))
            self._settled = False
        except OSError as error:  # a full disk, mostly: the job waits for room rather than being lost
            _log.error("the job's directory cannot be used", error=str(error))
            self._settled = False
            await asyncio.sleep(DISK_S)

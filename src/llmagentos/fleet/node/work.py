"""One claimed job, from wherever it stands to its reported end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import msgspec

from llmagentos.api import jobs
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Ack, Finish, HostEnd, NodeJob, Stats
from llmagentos.api.vault import PURPOSE, VARIABLES
from llmagentos.core import log, metrics
from llmagentos.core.errors import CallerError, Conflict
from llmagentos.core.finishing import to_the_end
from llmagentos.fleet.node import bundles, vault
from llmagentos.fleet.node.exchange import Exchange
from llmagentos.fleet.node.fetched import FetchedFiles
from llmagentos.fleet.node.insist import insist, spread
from llmagentos.fleet.node.jobdir import Exit, JobDirectory, Stop
from llmagentos.fleet.node.phases import Phase
from llmagentos.fleet.node.runner import FOREIGN, Runner
from llmagentos.fleet.node.spec import foreign_spec, runner_spec
from llmagentos.fleet.node.tail import EventTail
from llmagentos.fleet.node.vault import Unseal
from llmagentos.fleet.node.warm import Warm

POLL_S = 0.1
"""How often new events are looked for: what a person who watches notices."""
SWEEP_S = 5.0
"""How often processes are looked for that a dead runner left and that could not be found or ended."""
_UNREACHABLE = 4
_log = log.get(__name__)


class Work:
    """Brings `job` to its end. Whatever happened before is told from `directory`."""

    def __init__(
        self,
        client: ApiClient,
        job: NodeJob,
        directory: JobDirectory,
        *,
        home: str,
        variables: Mapping[str, Any],
        warm: Warm | None = None,
        unseal: Unseal | None = None,
    ) -> None:
        self._client = client
        self._job = job
        self._unseal = unseal
        self._directory = directory
        self._home = home
        self._variables = variables
        self._runner = Runner(directory, warm) if job.kind == "playbook" else Runner(directory, program=FOREIGN)
        self._tail = EventTail(directory.events, job.next_seq)
        self._fetched = FetchedFiles(client, job, directory)
        self._exchange = Exchange(client, job, directory, self._fetched) if job.inventory.span is not None else None
        self._cancel = job.cancel

    async def run(self, lease_s: float) -> None:
        """Do it. Raises `Conflict` when the lease was lost (claim again), `NotFound` when the job is gone."""
        await self._close(await self._while_held(lease_s))

    async def _while_held(self, lease_s: float) -> Finish:
        """All that needs the lease: over before the end is told, which gives the lease back."""
        running: list[Coroutine[Any, Any, None]] = [self._keep(lease_s)]
        if self._exchange is not None:
            running.append(self._exchange.run())
        beside = [asyncio.create_task(each) for each in running]
        work = asyncio.create_task(self._to_the_end())
        try:
            done, _ = await asyncio.wait([work, *beside], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            return await work
        finally:
            for task in (work, *beside):
                task.cancel()
            await asyncio.gather(work, *beside, return_exceptions=True)

    async def _keep(self, lease_s: float) -> None:
        pace = jobs.RENEW_S
        while True:
            await asyncio.sleep(spread(min(pace, lease_s / 3)))
            ack = await insist(lambda: jobs.renew(self._client, self._job.job, self._job.fence), what="renew")
            self._heed(ack)
            lease_s, pace = ack.lease_s, ack.renew_s

    def _heed(self, ack: Ack) -> None:
        self._cancel = self._cancel or ack.cancel

    async def _to_the_end(self) -> Finish:
        steps: Mapping[Phase, Callable[[], Awaitable[Finish | None]]] = {
            Phase.NEW: self._begin,
            Phase.RUNNING: self._follow,
            Phase.ORPHANED: self._sweep,
            Phase.ENDED: self._report,
            Phase.INTERRUPTED: self._report,
            Phase.REPORTED: self._report,
        }
        self._directory.root.mkdir(exist_ok=True, mode=0o700)
        while True:
            self._runner.reap()
            phase = await asyncio.to_thread(self._directory.phase)
            if (end := await steps[phase]()) is not None:
                return end

    # --- steps -------------------------------------------------------------------------------------

    async def _begin(self) -> Finish | None:
        try:
            if self._cancel:
                self._directory.write_stop(Stop("cancelled", "cancelled before it began"))
                self._directory.write_exit(Exit(1))
                return None
            await self._prepare()
            started = await to_the_end(asyncio.to_thread(self._runner.start))
        except Conflict:
            raise  # the lease: nothing is wrong with the job
        except (CallerError, OSError) as error:
            return self._refuse(str(error))
        _log.info("playbook started" if started else "playbook found running", playbook=self._job.playbook)
        return None

    async def _prepare(self) -> None:
        await to_the_end(asyncio.to_thread(self._directory.prepare))  # else it goes on beside the next attempt
        playbook, job = self._job.kind == "playbook", self._job
        if boxes := job.inventory.sealed_variables.get(job.host):
            secrets = msgspec.json.decode(vault.opened(boxes, VARIABLES, self._unseal), type=dict[str, Any])
            job = msgspec.structs.replace(job, extra_vars=job.extra_vars | secrets)
        self._directory.write_spec(
            runner_spec(job, home=self._home, variables=self._variables) if playbook else foreign_spec(job)
        )
        if boxes := job.inventory.sealed.get(job.host):
            self._directory.write_vault(vault.opened(boxes, PURPOSE, self._unseal))
        digest = self._job.bundle
        content = await insist(lambda: jobs.download_bundle(self._client, digest), what="download")
        await to_the_end(asyncio.to_thread(bundles.unpack, content, digest, self._directory.bundle))

    def _refuse(self, why: str) -> Finish | None:
        """The job cannot be begun here. Nothing has run, so where the disk is full nothing is lost either."""
        _log.error("job refused", error=why)
        try:
            self._directory.write_exit(Exit(1, error=f"the node could not begin: {why}"))
        except OSError:
            # The reason cannot even be written down here: the server alone keeps it.
            return Finish(self._job.fence, "failed", 1, None, f"the node could not begin: {why}"[:4096])
        return None

    async def _follow(self) -> None:
        if not await self._send():
            await self._fetched.send()
            await self._runner.ended(within=POLL_S)
        if (stop := self._reason_to_stop()) is not None:
            _log.warning("stopping the playbook", reason=stop.message)
            self._directory.write_stop(stop)
            await asyncio.to_thread(self._runner.stop)

    def _reason_to_stop(self) -> Stop | None:
        if self._cancel:
            return Stop("cancelled", "cancelled while it ran")
        runner = self._directory.runner()
        if runner is not None and time.monotonic() - runner.begun > self._job.timeout_s:
            return Stop("failed", f"stopped: it took longer than {self._job.timeout_s:g} s")
        return None

    async def _sweep(self) -> None:
        """The runner died in the middle of a task; what it left must not meet the next job's tasks."""
        left = await asyncio.to_thread(self._runner.kill)
        _log.error("the playbook's process died; ending what it left", processes=left)
        await asyncio.sleep(POLL_S if left else SWEEP_S)

    async def _report(self) -> Finish:
        """All that the job left has been sent; how it ended."""
        while await self._send():
            continue
        if self._exchange is not None:
            await self._exchange.send()
        await self._fetched.send()
        end = ending(self._job, self._directory.exit(), self._directory.stopped())
        if self._fetched.refused is not None and end.status == "succeeded":
            end = msgspec.structs.replace(end, status="failed", exit_code=2, message=self._fetched.refused[:4096])
        return end

    async def _close(self, end: Finish) -> None:
        await insist(lambda: jobs.finish(self._client, self._job.job, end), what="report the end")
        await to_the_end(asyncio.to_thread(self._directory.mark_reported))
        metrics.NODE_JOBS.labels(end.status).inc()
        _log.info("job ended", status=end.status, exit_code=end.exit_code)

    async def _send(self) -> bool:
        batch = await asyncio.to_thread(self._tail.read)
        if not batch:
            return False
        job = self._job
        self._heed(await insist(lambda: jobs.send_events(self._client, job.job, job.fence, batch), what="send events"))
        metrics.NODE_EVENTS.inc(len(batch))
        return True


def ending(job: NodeJob, how: Exit | None, stop: Stop | None) -> Finish:
    """What is reported of a job that ended so. `stop` wins: then the code tells only how it was ended."""
    recap = _total(how.recap) if how is not None and how.recap else None
    if stop is not None:
        return Finish(job.fence, stop.status, 1, recap, stop.message)
    if how is None:
        why = "the playbook's process ended without saying how (killed, or the machine went down); it is not run again"
        return Finish(job.fence, "interrupted", 1, recap, why)
    return Finish(job.fence, _status(how, recap), how.code, recap, how.error)


def _status(how: Exit, recap: Stats | None) -> HostEnd:
    if how.code == 0:
        return "succeeded"
    # ansible-playbook says 4 for a host it could not reach, and for a playbook that it could not read.
    return "unreachable" if how.code == _UNREACHABLE and recap is not None and recap.unreachable else "failed"


def _total(recap: Mapping[str, Stats]) -> Stats:
    """Sums over this host and its localhost."""
    return Stats(*(sum(getattr(each, name) for each in recap.values()) for name in Stats.__struct_fields__))

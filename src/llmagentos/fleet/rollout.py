"""What a rollout asks the world: health gates by URL or playbook, and the rollback.

All of it may be done again after a crash: a gate is asked anew, a playbook is a job with an
idempotency key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from llmagentos.api.http import HttpClient
from llmagentos.api.job_control import Batch, Rollout
from llmagentos.api.jobs import Job, JobSpec
from llmagentos.core import log
from llmagentos.core.clock import Clock
from llmagentos.core.errors import CallerError, LLMAgentOSError
from llmagentos.core.events import Hub
from llmagentos.fleet.job_checks import gate_url
from llmagentos.fleet.job_gates import Verdict, begun
from llmagentos.fleet.job_writer import JobWriter
from llmagentos.fleet.jobs import Origin
from llmagentos.storage.job_changes import Changes, Seen
from llmagentos.storage.job_tables import ENDED
from llmagentos.storage.jobs import JobRecords

TRY_S = 5.0
"""Patience with one answer of a gate."""
PACE_S = 1.0
AT_ONCE = 16
BY = "system"

Fetch = Callable[[str], Awaitable[int]]
Submit = Callable[[JobSpec, str, Origin], Awaitable[Job]]

_log = log.get(__name__)


async def fetch(url: str) -> int:
    """GET `url`; the status. Raises `LLMAgentOSError` when nothing answers."""
    parts = urlsplit(url)
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    client = HttpClient(connect_timeout=TRY_S)
    try:
        return (await client.request("GET", f"{parts.scheme}://{parts.netloc}", path, timeout=TRY_S)).status
    finally:
        await client.aclose()


class Checks:
    """Finds what the gate of a batch, or a rollback, came to."""

    def __init__(
        self, records: JobRecords, writer: JobWriter, hub: Hub, clock: Clock, *, submit: Submit, get: Fetch = fetch
    ) -> None:
        self._records = records
        self._writer = writer
        self._hub = hub
        self._clock = clock
        self._submit = submit
        self._get = get

    async def verdict(self, seen: Seen, batch: Batch) -> Verdict:
        """Ask until it is known."""
        rollout = seen.row.spec.rollout
        assert rollout is not None
        with log.bind(job_id=str(seen.row.id)):
            if batch.kind == "rollback":
                nodes = frozenset(host.node for host in seen.hosts if begun(host))
                assert rollout.rollback is not None
                found = await self._by_playbook(seen, batch, rollout.rollback, nodes, None)
            else:
                found = await self._gate(seen, batch, rollout)
            _log.info("gate" if batch.kind == "batch" else "rollback", batch=batch.number, result=found.result)
        return found

    async def _gate(self, seen: Seen, batch: Batch, rollout: Rollout) -> Verdict:
        mine = [host for host in seen.hosts if host.batch == batch.number and host.state == "succeeded"]
        nodes = [host.node for host in mine]
        if rollout.gate_playbook is not None:
            return await self._by_playbook(seen, batch, rollout.gate_playbook, frozenset(nodes), rollout.gate_timeout_s)
        assert rollout.gate is not None
        inventory = await self._records.inventory(seen.row.id)
        urls = {node: gate_url(rollout.gate, node, inventory) for node in nodes}
        return await self._by_url(batch, urls, (batch.at or self._clock.time()) + rollout.gate_timeout_s)

    async def _by_url(self, batch: Batch, urls: dict[str, str], deadline: float) -> Verdict:
        room = asyncio.Semaphore(AT_ONCE)
        said: dict[str, str] = {}

        async def healthy(node: str) -> bool:
            async with room:
                try:
                    status = await self._get(urls[node])
                except (LLMAgentOSError, OSError, ValueError) as error:
                    said[node] = str(error)
                    return False
            said[node] = f"{urls[node]} answered {status}"
            return 200 <= status < 300

        waiting = list(urls)
        while waiting:
            answers = await asyncio.gather(*(healthy(node) for node in waiting))
            waiting = [node for node, well in zip(waiting, answers, strict=True) if not well]
            if waiting and self._clock.time() >= deadline:
                told = "; ".join(f"{node}: {said[node]}" for node in waiting[:3])
                return Verdict(batch.number, "failed", f"not healthy in time: {told}"[:1000])
            if waiting:
                await asyncio.sleep(PACE_S)
        return Verdict(batch.number, "passed")

    async def _by_playbook(
        self, seen: Seen, batch: Batch, playbook: str, nodes: frozenset[str], timeout: float | None
    ) -> Verdict:
        parent = seen.row
        spec = msgspec.structs.replace(
            parent.spec,
            playbook=playbook,
            rollout=None,
            lock=None,
            window=None,
            approval=None,
            retries=None,
            total_timeout_s=timeout,
            idempotency_key=f"{batch.kind}:{parent.id}:{batch.number}",
        )
        origin = Origin(name=f"job:{parent.id}", parent=parent.id, urgent=True, nodes=nodes)
        try:
            child = (await self._submit(spec, BY, origin)).summary
        except CallerError as error:
            return Verdict(batch.number, "failed", f"{playbook}: {error.message}"[:1000])
        if batch.job != child.id:
            await self._writer.change(parent.id, BY, lambda _: Changes(batches={batch.number: {"child": child.id}}))
        state = await self._ended(child.id)
        result: Literal["passed", "failed"] = "passed" if state == "succeeded" else "failed"
        return Verdict(batch.number, result, None if result == "passed" else f"{playbook} {state}: job {child.id}")

    async def _ended(self, job: int) -> str:
        with self._hub.subscribe(f"job:{job}") as wakes:
            while True:
                row = await self._records.find(job)
                if row is None or row.state in ENDED:
                    return row.state if row is not None else "failed"
                try:
                    await wakes.next(PACE_S)
                except TimeoutError:
                    continue  # another server may have changed it

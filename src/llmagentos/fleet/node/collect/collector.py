"""Measures and reads on their beats, keeps it on disk, and sends it while the server is there."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import msgspec

from llmagentos.api import telemetry
from llmagentos.api.client import ApiClient
from llmagentos.api.telemetry import MAX_LINES, Line, Sample
from llmagentos.core import log, metrics
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.core.lifecycle import Backoff
from llmagentos.fleet.node.collect import readings
from llmagentos.fleet.node.collect.journal import Entry, Journal
from llmagentos.fleet.node.collect.logfiles import LogFiles
from llmagentos.fleet.node.collect.probes import Probes
from llmagentos.fleet.node.collect.spool import Spool
from llmagentos.fleet.node.collect.wanted import Directory
from llmagentos.fleet.node.insist import passing

LOOK_S = 1.0
"""How often log files and `collect.d` are looked at."""
_log = log.get(__name__)


class Pulse:
    """When to measure: at once, then every so often at a moment of its own (`phase`, 0 to 1, of the interval).

    So a thousand nodes that were started together, as after a power cut, do not send together ever after.
    """

    def __init__(self, phase: float) -> None:
        self._phase = phase
        self._next: float | None = None
        self._every = 0.0

    def due(self, now: float, every: float) -> bool:
        """Whether to measure now; says so once for each time."""
        if self._next is not None and every != self._every:  # from now on more or less often
            self._next += every - self._every
        self._every = every
        if self._next is None:
            self._next = now + every * self._phase
            return True
        if now < self._next:
            return False
        self._next += every * (1 + (now - self._next) // every)
        return True

    def left(self, now: float) -> float:
        """Seconds to the next time."""
        return max(0.0, (self._next or 0.0) - now)


class Collector:
    """What `root` (the node's state) needs for it: `collect.d` is read, `spool/` written."""

    def __init__(self, client: ApiClient, root: Path, wanted: Path) -> None:
        self._client = client
        self._wanted = Directory(wanted)
        self._spool = Spool(root)
        self._probes = Probes()
        self._files = LogFiles(root / "files.json")
        self._journal = Journal(root / "journal.json")
        self._filled = asyncio.Event()
        self._full = False

    async def run(self) -> None:
        """For ever. Raises `Unauthenticated` once the node was removed."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._collect())
                group.create_task(self._send())
        except* LLMAgentOSError as errors:
            raise errors.exceptions[0] from None
        finally:
            await self._probes.close()
            await self._journal.close()
            self._files.close()

    async def _collect(self) -> None:
        pulse = Pulse(random.random())  # noqa: S311 - no secret
        while True:
            wanted = await asyncio.to_thread(self._wanted.read)
            self._probes.want(wanted.probes)
            self._journal.want(wanted.logs)
            await asyncio.to_thread(self._files.want, wanted.logs)
            samples = []
            if pulse.due(time.monotonic(), wanted.every):
                values = await asyncio.to_thread(readings.read) | self._probes.values() | self._own()
                samples.append(Sample(time.time(), dict(list(values.items())[: telemetry.MAX_SERIES])))
            entries = self._journal.take(MAX_LINES)
            await self._keep(samples, entries)
            await asyncio.sleep(min(LOOK_S, pulse.left(time.monotonic())))

    def _own(self) -> dict[str, float]:
        return {
            "node_collect_dropped_batches_total": float(self._spool.dropped),
            "node_collect_spooled_batches": float(len(self._spool)),
            "node_collect_faulty_files": float(self._wanted.faults),
        }

    async def _keep(self, samples: list[Sample], entries: list[Entry]) -> None:
        try:
            if await asyncio.to_thread(self._put, samples, entries):
                self._filled.set()
            self._full = False
        except OSError as error:  # mostly a full disk: told once, tried again with what comes next
            if not self._full:
                _log.error("what was collected cannot be kept", error=str(error))
            self._full = True
            metrics.NODE_TELEMETRY_DROPPED.inc()

    def _put(self, samples: list[Sample], entries: list[Entry]) -> bool:
        now = time.time()
        lines = [Line(at, source, text) for at, source, text, _ in entries]
        lines += [Line(now, source, text) for source, text in self._files.read(MAX_LINES - len(lines))]
        if not samples and not lines:
            return False
        self._spool.put(samples, lines)
        self._files.save()
        self._journal.save(entries)
        return True

    async def _send(self) -> None:
        backoff = Backoff(first=0.5, most=30.0)
        while True:
            self._filled.clear()
            batch = await asyncio.to_thread(self._spool.oldest)
            if batch is None:
                await self._filled.wait()
                continue
            try:
                await telemetry.send(self._client, batch)
            except (LLMAgentOSError, msgspec.DecodeError) as error:
                if passing(error):
                    if backoff.failures == 0:
                        _log.warning("server away", doing="telemetry", error=str(error))
                    await asyncio.sleep(backoff.died(0.0))
                    continue
                if getattr(error, "status", 0) in (401, 403):
                    raise
                _log.error("the server does not take a batch: dropped", number=batch.number, error=str(error))
                metrics.NODE_TELEMETRY_DROPPED.inc()
            else:
                metrics.NODE_TELEMETRY_SENT.inc()
            try:
                await asyncio.to_thread(self._spool.acknowledged, batch.number)
            except OSError as error:  # a full disk must not end the node agent: the batch comes again, and is known
                if backoff.failures == 0:
                    _log.error("what was sent cannot be ticked off", error=str(error))
                await asyncio.sleep(backoff.died(0.0))
            else:
                backoff = Backoff(first=0.5, most=30.0)

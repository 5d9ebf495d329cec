"""Signs of life: a heartbeat every few seconds, and the facts when they changed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from llmagentos.api import nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.nodes import Beat, Facts, Heartbeat, ModuleUnit
from llmagentos.core import log, metrics
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.fleet.node import facts
from llmagentos.fleet.node.insist import passing, spread

RETRY_S = 3.0
LOOK_S = 0.5
"""How often modules are looked at: a change of their states is told at once, not with the next heartbeat."""
_log = log.get(__name__)


class Beats:
    """Tells the server how this node is; `modules` says what runs, `heed` gets what the server wants."""

    def __init__(
        self,
        client: ApiClient,
        state: Path,
        *,
        modules: Callable[[], list[ModuleUnit]],
        heed: Callable[[Beat], None],
    ) -> None:
        self._client = client
        self._state = state
        self._modules = modules
        self._heed = heed
        self._told: Facts | None = None
        self._told_modules: list[ModuleUnit] = []
        self._away = False

    async def run(self) -> None:
        """For ever. Raises `Unauthenticated` once the node was removed."""
        while True:
            try:
                interval = await self._once()
                self._outcome("ok")
            except (LLMAgentOSError, msgspec.DecodeError) as error:
                if not passing(error):
                    raise
                self._outcome(getattr(error, "code", "unreadable"), error)
                interval = RETRY_S
            await self._pause(spread(interval))

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(LOOK_S, left))
            if not self._away and self._modules() != self._told_modules:
                return

    async def _once(self) -> float:
        found = await asyncio.to_thread(facts.collect, self._state)
        if found != self._told:
            await nodes.put_facts(self._client, found)
            self._told = found
        modules = self._modules()
        for state, number in ({"running": 0} | Counter(module.state for module in modules)).items():
            metrics.NODE_MODULES.labels(state).set(number)
        heartbeat = Heartbeat(
            load=facts.load(),
            memory_available_bytes=psutil.virtual_memory().available,
            disk_free_bytes=psutil.disk_usage(str(self._state)).free,
            modules=modules,
            time=time.time(),
        )
        answer = await nodes.beat(self._client, heartbeat)
        self._told_modules = modules
        self._heed(answer)
        return answer.interval_s

    def _outcome(self, outcome: str, error: Exception | None = None) -> None:
        metrics.NODE_HEARTBEATS.labels(outcome).inc()
        if error is not None and not self._away:
            _log.warning("server away", doing="heartbeat", error=str(error))
        elif error is None and self._away:
            self._told = None  # it may have lost them
        self._away = error is not None

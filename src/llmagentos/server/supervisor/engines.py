"""The engines of this machine, run as the server wishes (`llm.engines.wishes`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from llmagentos.core.child import Child, ChildSpec
from llmagentos.core.config import Config
from llmagentos.core.state import StateDirectory
from llmagentos.llm.engines import children, wishes
from llmagentos.llm.engines.local import place
from llmagentos.llm.engines.wishes import Wish
from llmagentos.server.supervisor import parts

LOOK_S = 0.1


class Keeper(Protocol):
    """Who runs children."""

    def launch(self, spec: ChildSpec) -> Child:
        """Start a child and keep it running."""
        ...

    async def end(self, child: Child) -> None:
        """Stop it for good."""
        ...


class Engines:
    """Which engines run: those of the configuration at first, then those that the server wishes for."""

    def __init__(self, config: Config, state: StateDirectory, env: Mapping[str, str], keeper: Keeper) -> None:
        self._known = {child.model: child for child in children(config, state)}
        self._state = state
        self._env = env
        self._keeper = keeper
        self._running: dict[str, tuple[int, Child]] = {}

    def start(self) -> list[Child]:
        """Launch those that run from the start."""
        return [self._launch(model, 0) for model, engine in self._known.items() if engine.at_start]

    async def follow(self) -> None:
        """Do what the server wishes, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for model, wish in wishes.read(self._state).items():
                if model in self._known:
                    await self._align(model, wish)

    async def _align(self, model: str, wish: Wish) -> None:
        running = self._running.get(model)
        if running is not None and (not wish.wanted or running[0] != wish.generation):
            await self._keeper.end(running[1])
            del self._running[model]
            place(self._state, model).clear()
            running = None
        if wish.wanted and running is None:
            self._launch(model, wish.generation)

    def _launch(self, model: str, generation: int) -> Child:
        child = self._keeper.launch(parts.engine(self._state, self._env, self._known[model], generation))
        self._running[model] = (generation, child)
        return child

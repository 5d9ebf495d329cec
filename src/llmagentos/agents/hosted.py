"""Which agents modules host and whether they are there: told with every claim, so known again after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from llmagentos.agents.ledger import SERVER
from llmagentos.api.agents import AgentSpec
from llmagentos.api.hosting import HostedAgent
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Forbidden
from llmagentos.security.identity import Identity, Kind

AWAY_S = 15.0
"""A module that has not asked for runs for this long, beyond its own wait, is away."""


class Records(Protocol):
    """What this needs of storage."""

    async def put(self, spec: AgentSpec, *, host: str, by: str, functions: list[str] | None = None) -> Any: ...


class Hosted:
    """Modules that ask for runs."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._known: dict[tuple[str, str], HostedAgent] = {}
        self._until: dict[str, float] = {}

    async def announce(self, module: str, agents: Sequence[HostedAgent], *, by: Identity, wait: float) -> None:
        """`module` asks for runs of `agents` and will wait `wait` seconds. Raises `AgentHostedElsewhere`."""
        host = module_host(module)
        for agent in agents:
            if self._known.get((host, agent.spec.name)) != agent:
                await self._records.put(agent.spec, host=host, by=str(by), functions=agent.functions)
                self._known[(host, agent.spec.name)] = agent
        self._until[host] = self._clock.monotonic() + wait + AWAY_S

    def forget(self, agent: str) -> None:
        """The agent was deleted: its module, if it is still there, brings it back with its next claim."""
        self._known = {key: value for key, value in self._known.items() if key[1] != agent}

    def online(self, host: str) -> bool:
        """Whether somebody takes the runs of `host`."""
        return host == SERVER or self._until.get(host, 0.0) > self._clock.monotonic()


def module_host(module: str) -> str:
    """The host that a module is."""
    return f"module:{module}"


def require_own(identity: Identity, host: str) -> None:
    """Raises `Forbidden` when `identity` is a module, and another one than `host`."""
    if identity.kind is Kind.MODULE and module_host(identity.subject) != host:
        raise Forbidden(f"{identity} may not act for {host}", hint="a module only carries on its own agents' runs")

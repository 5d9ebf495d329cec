"""The keeper of runs and control over them on a real database; the gate to models only notes what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmagentos.agents.control import Control
from llmagentos.agents.ledger import SERVER, Ledger
from llmagentos.api.agents import AgentSpec
from llmagentos.api.hosting import Claim
from llmagentos.core.clock import ManualClock
from llmagentos.core.events import Hub
from llmagentos.storage.agents import AgentRecords
from llmagentos.storage.database import Database
from llmagentos.storage.runs import RunRecords

SPEC = AgentSpec(name="support")
MODULE = "module:shop"


@dataclass
class Gate:
    """Notes what it is told; runs in `waiting` have a call there."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)

    def cancel_run(self, run_id: str) -> int:
        self.told.append(("cancel_run", run_id))
        return 0

    def put_down(self, run_id: str, *, everything: bool) -> int:
        self.told.append(("put_down", run_id))
        return int(run_id in self.waiting)

    def hold(self, run_id: str) -> None:
        self.told.append(("hold", run_id))

    def release(self, run_id: str) -> None:
        self.told.append(("release", run_id))

    def renice(self, run_id: str, priority: int) -> None:
        self.told.append(("renice", run_id, priority))

    def forget(self, run_id: str) -> None:
        self.told.append(("forget", run_id))

    def stop(self, run_id: str) -> None:
        self.told.append(("stop", run_id))


@dataclass
class House:
    """A ledger on a database, and control over it."""

    database: Database
    clock: ManualClock
    agents: AgentRecords
    records: RunRecords
    ledger: Ledger
    gate: Gate
    control: Control

    def again(self) -> Ledger:
        """The ledger of a server that was started again."""
        self.ledger = _ledger(self.records, self.clock, self.agents)
        self.gate = Gate()
        self.control = Control(self.ledger, self.records, self.gate, stop=self.gate.stop)
        return self.ledger

    async def ask(self, text: str = "hello", *, name: str = "support", **more: Any) -> str:
        """A new run."""
        agent = await self.agents.current(name)
        assert agent is not None
        return (await self.ledger.create(agent, text, by="admin:me", **more)).id

    async def taken(self, holder: str = "server/1", host: str = SERVER) -> Claim:
        """A run that a host has taken."""
        claim = await self.ledger.claim(host, holder, wait=0)
        assert claim is not None
        return claim


def _ledger(records: RunRecords, clock: ManualClock, agents: AgentRecords) -> Ledger:
    async def spec_of(name: str, version: int) -> AgentSpec | None:
        found = await agents.version(name, version)
        return found.spec if found is not None else None

    return Ledger(records, Hub(), clock, spec_of)


@asynccontextmanager
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """With the agents `support`, whose host is the server, and `seller` of the module shop."""
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.create_all()
    clock = ManualClock()
    agents = AgentRecords(database, clock)
    records = RunRecords(database, clock)
    await agents.put(SPEC, host=SERVER, by="me")
    await agents.put(AgentSpec(name="seller"), host=MODULE, by="module:shop")
    ledger, gate = _ledger(records, clock, agents), Gate()
    yield House(database, clock, agents, records, ledger, gate, Control(ledger, records, gate, stop=gate.stop))
    await database.aclose()

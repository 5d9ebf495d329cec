"""The owner of budgets on a real database, in processes that can die at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from llmagentos.api.budgets import BudgetAlert, OnLimit
from llmagentos.api.llm import CallInfo, Usage
from llmagentos.core.clock import ManualClock
from llmagentos.kernel.budgets import BudgetTree, Path
from llmagentos.kernel.limits import Limit
from llmagentos.kernel.prices import Price, PriceTable
from llmagentos.llm.budget_calls import Demand, Step
from llmagentos.llm.budgeting import Budgeting
from llmagentos.storage.budgets import BudgetRecords, Changes
from llmagentos.storage.calls import CallRecords
from llmagentos.storage.database import Database, StorageUnavailable

ORG, TEAM, AGENT, CALLER = ("org",), ("org", "red"), ("org", "red", "helper"), ("org", "default", "admin:me")
LIMITS: dict[Path, list[Limit]] = {ORG: [Limit("tokens", 1_000, "day")]}


TOOK = Usage(40, 10, 50)


@dataclass
class Call:
    """A call as the meter knows it."""

    id: str
    spent: Usage = TOOK
    model: str = "m"

    def record(self, error: BaseException | None) -> CallInfo:
        status: Any = "succeeded" if error is None else "failed"
        used = self.spent
        return CallInfo(
            self.id, 0.0, self.model, "openai", "chat", "me", status, used.prompt_tokens, used.completion_tokens, 0, 0
        )

    def charged(self, error: BaseException | None, budget: str, tokens: int, money: int) -> CallInfo:
        return replace(self.record(error), budget=budget, charged=tokens, money=money)


class Flaky(BudgetRecords):
    """Storage that can fail after it stored, or before; of a process that is dead it hears nothing any more."""

    fails: str = ""
    stored = 0

    async def store(self, changes: Changes) -> None:
        if self.fails == "dead":
            return
        if self.fails == "before":
            raise StorageUnavailable("away")
        await super().store(changes)
        self.stored += 1
        if self.fails == "after":
            raise StorageUnavailable("away")


class Process:
    """A server's budgets; another one on the same database is the server after a crash."""

    def __init__(self, database: Database, clock: ManualClock, limits: dict[Path, list[Limit]]) -> None:
        self.tree = BudgetTree(clock)
        for path, known in limits.items():
            self.tree.set_limits(path, known)
        self.records = Flaky(database, clock)
        self.logged = CallRecords(database, clock, days=30)
        self.alerts: list[BudgetAlert] = []
        self.on_limit: OnLimit = "refuse"
        self.paths: dict[str, Path] = {}
        self.step: Step | None = None
        self.paused: list[str] = []
        self.resumed: list[str] = []
        self.away = False
        """Nobody can be resumed."""
        price = [Price("m", Decimal("0.5"), Decimal(2)), Price("m", Decimal(1), Decimal(2), valid_from=2e9)]
        self.budgets = Budgeting(
            self.tree,
            self.records,
            clock,
            prices=PriceTable(price),
            announce=self.alerts.append,
            on_limit=lambda _: self.on_limit,
        )
        self.budgets.path_of, self.budgets.step_of = self._path_of, self._step_of
        self.budgets.pause, self.budgets.resume = self._pause, self._resume

    async def _path_of(self, run: str) -> Path:
        return self.paths.get(run, (*AGENT, run))

    async def _step_of(self, _: str) -> Step | None:
        return self.step

    async def _pause(self, run: str, _: str) -> bool:
        self.paused.append(run)
        return False

    async def _resume(self, run: str) -> None:
        if self.away:
            raise StorageUnavailable("away")
        self.resumed.append(run)

    async def call(self, call: Call, run: str | None = "r1", demand: Demand = Demand(50, 50)) -> None:
        """A call from its beginning to its end."""
        async with self.budgets.holding(call, CALLER, run, demand) as hold:
            hold.started = True

    async def crash(self, call: Call, run: str | None = "r1") -> None:
        """A call that begins in this process, which does not live to see its end."""
        async with self.budgets.holding(call, CALLER, run, Demand(50, 50)) as hold:
            hold.started = True
            self.records.fails = "dead"

    async def require_sums(self) -> None:
        """What every node that is no run's has spent is the exact sum of the calls that are listed in and below it."""
        rows = [call for call in await self.logged.newest(10_000) if call.budget is not None]
        for path in self.tree.paths():
            if len(path) <= 3:
                below = [call for call in rows if f"{call.budget}/".startswith("/".join(path) + "/")]
                sums = {
                    "tokens": sum(call.charged for call in below),
                    "money": sum(call.money for call in below),
                    "calls": len(below),
                }
                spent = self.tree.spent(path)
                assert {name: spent.get(name, 0) for name in sums} == sums, path


Start = Callable[..., Awaitable[Process]]


def house(database_url: str, main: Callable[[Start, ManualClock], Awaitable[None]]) -> None:
    """Run `main` with a way to start processes on one database."""

    async def run() -> None:
        database, clock = Database(database_url), ManualClock()
        await database.create_all()

        async def start(
            live: tuple[str, ...] = ("r1",), limits: dict[Path, list[Limit]] | None = None, paused: Any = ()
        ) -> Process:
            process = Process(database, clock, LIMITS if limits is None else limits)
            await process.budgets.begin(live, paused)
            return process

        try:
            await main(start, clock)
        finally:
            await database.aclose()

    asyncio.run(run())

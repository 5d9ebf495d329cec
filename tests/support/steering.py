"""Everything that runs of agents are made of, wired as the server wires it, with an engine and tools that wait.

What a run is to do stands in its request: steps that follow on each other, each a few tools called at once. `look`
is a tool, `pay` one that a person must agree to, and `help` a run of another agent, which looks.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llmagentos.agents import approvals
from llmagentos.agents.host import AgentHost
from llmagentos.agents.ledger import SERVER
from llmagentos.agents.tools import CalledBy, Tool
from llmagentos.api.agents import AgentSpec, Limits, ToolUse
from llmagentos.api.budgets import Budget
from llmagentos.api.runs import RunEvent, RunState, RunSummary
from llmagentos.core.clock import SystemClock
from llmagentos.core.config import Config, schema
from llmagentos.core.errors import Conflict, NotFound
from llmagentos.core.state import StateDirectory
from llmagentos.llm.budget_limits import BudgetLimits
from llmagentos.llm.budgeting import Budgeting
from llmagentos.llm.gateway import Gateway
from llmagentos.server.wiring import agents, budgets, llm, registry, tools
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.calls import CallRecords
from llmagentos.storage.runs import RunRecords, RunRow
from support.crashing import charged
from support.scripted import Step, Wait, scripted_engine
from support.server import eventually

PLACES = 2
"""Runs that the host carries on at a time: one place that is lost is missed."""
SLOTS = 2
ASKED_S = 60.0
"""For so long a person is asked."""
PATIENCE_S = 60.0
ME = "admin:me"
ITEM = {
    "type": "object",
    "properties": {"item": {"type": "string"}, "request": {"type": "string"}},
    "additionalProperties": False,
}
_LIMITS = Limits(steps=100, repeats=100, timeout=80_000.0, tokens=10**6)
BOSS = AgentSpec(
    name="boss",
    model="m",
    tools=[
        ToolUse(mcp="desk"),
        ToolUse(mcp="safe", approval="required", approval_timeout=ASKED_S),
        ToolUse(agent="helper"),
    ],
    limits=_LIMITS,
)
HELPER = AgentSpec(name="helper", model="m", tools=[ToolUse(mcp="desk")], limits=_LIMITS)
_NAMES = {"look": "desk_look", "pay": "safe_pay", "help": "helper"}


class Later(SystemClock):
    """The machine's clocks, with a wall clock that can be put forward."""

    more = 0.0

    def time(self) -> float:
        return super().time() + self.more


class Gates:
    """What waits to be let go on, the oldest first; all of it when it is `open`."""

    def __init__(self) -> None:
        self.open = False
        self._waiting: list[asyncio.Event] = []

    def new(self) -> asyncio.Event:
        event = asyncio.Event()
        if self.open:
            event.set()
        else:
            self._waiting.append(event)
        return event

    def let(self, number: int) -> None:
        """One of them."""
        if self._waiting:
            self._waiting.pop(number % len(self._waiting)).set()

    def let_all(self) -> None:
        """Those that wait, and all that come."""
        self.open = True
        while self._waiting:
            self.let(0)


class World:
    """One server's runs. `made` are the calls of tools that were carried out."""

    def __init__(
        self,
        base: Foundation,
        clock: Later,
        gateway: Gateway,
        known: agents.Agents,
        calls: CallRecords,
        limits: BudgetLimits,
    ) -> None:
        self._clock = clock
        self._gateway = gateway
        self.ledger, self.control, self.approvals = known.ledger, known.control, known.approvals
        self.records = RunRecords(base.database, base.clock)
        self.agents = known.records
        self.calls = calls
        self.limits = limits
        self.models, self.tools = Gates(), Gates()
        self.made: Counter[tuple[str, str]] = Counter()
        self.killed: set[str] = set()
        self.runs: list[str] = []
        self.answers: list[asyncio.Task[None]] = []
        self._steered = self._steering = 0
        """How often somebody began to pause, resume or kill, and how many are at it."""

    # The seams ------------------------------------------------------------------------------------

    def say(self, request: dict[str, Any]) -> Sequence[Step]:
        """The engine: the next step of the plan, or that it is done."""
        asked = next(message["content"] for message in request["messages"] if message["role"] == "user")
        name, _, plan = asked.partition(" ")
        steps = [step.split("+") for step in plan.split(",")] if plan else []
        results = sum(message["role"] == "tool" for message in request["messages"])
        for place, step in enumerate(steps):
            if results == 0:
                delta = {"tool_calls": [_wanted(i, kind, f"{name}-{place}-{i}") for i, kind in enumerate(step)]}
                return [Wait(self.models.new()), delta]
            results -= len(step)
        return [Wait(self.models.new()), f"done {name}"]

    async def source(self, use: ToolUse) -> list[Tool]:
        """The tools at the seam."""

        async def invoke(arguments: Mapping[str, Any], timeout: float, by: CalledBy) -> Any:
            self.made[by.run, by.call_id] += 1
            await self.tools.new().wait()
            return f"{use.mcp} {arguments['item']}"

        return [Tool(f"{use.mcp}.{'look' if use.mcp == 'desk' else 'pay'}", "Does it.", ITEM, False, invoke)]

    # What people do -------------------------------------------------------------------------------

    async def ask(self, plan: str) -> str:
        """A new run."""
        agent = await self.agents.current("boss")
        assert agent is not None
        run = (await self.ledger.create(agent, f"r{len(self.runs)} {plan}", by=ME)).id
        self.runs.append(run)
        return run

    def act(self, what: str, number: int) -> None:
        """Begin something without waiting for it; that it was answered is judged later."""
        match what:
            case "model":
                self.models.let(number)
            case "tool":
                self.tools.let(number)
            case "expire":
                self._clock.more += ASKED_S + 1
            case _:
                self.answers.append(asyncio.create_task(self._answered(what, number)))

    async def _answered(self, what: str, number: int) -> None:
        """Every answer is a success or a conflict."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._steer(what, number)
        except (Conflict, NotFound):
            return

    async def _steer(self, what: str, number: int) -> None:
        if what in ("approve", "deny"):
            if waiting := self.approvals.listing():
                await getattr(self.approvals, what)(waiting[number % len(waiting)].id, by=ME)
            return
        rows = await self.records.unended() if number % 2 else []
        run = rows[number // 2 % len(rows)].id if rows else self.runs[-1 - number % len(self.runs)]
        before = self._steered
        self._steered += 1
        self._steering += 1
        try:
            await self._control(what, run)
            if self._steering == 1 and self._steered == before + 1:
                await self._judge_below(what, run, before + 1)
        finally:
            self._steering -= 1

    async def _control(self, what: str, run: str) -> None:
        match what:
            case "kill":
                await self.control.kill(run, by=ME)
                self.killed.add(run)
            case "resume":
                await self.control.resume(run, by=ME)
            case _:
                await self.control.pause(run, by=ME, now=what == "pause_now")

    async def _judge_below(self, what: str, run: str, steered: int) -> None:
        """Nobody else steered meanwhile: what is below the run has its fate, unless somebody begins just now."""
        here = (await self.ledger.state(run)).state
        states = [await self.ledger.state(row.id) for row in await self.below(run)]
        if self._steering > 1 or self._steered != steered:
            return
        told = f"{what} {run}: {here}, {[each.state for each in states]} below"
        if what == "kill":
            assert not states, told
        elif what == "resume":
            assert not any(each.paused is not None and each.paused.by == f"run:{run}" for each in states), told
        elif here is RunState.PAUSED:
            assert all(each.state is RunState.PAUSED or each.ended_at is not None for each in states), told
            assert not self._in_engines(run), told

    def _in_engines(self, run: str) -> bool:
        return any(call.run_id == run for queue in self._gateway.queues(most=SLOTS) for call in queue.running)

    async def below(self, run: str) -> list[RunRow]:
        """The runs below `run` that have not ended."""
        found = await self.records.children(run)
        return [*found, *[row for child in found for row in await self.below(child.id)]]

    # The end --------------------------------------------------------------------------------------

    async def to_the_end(self) -> None:
        """Let everything go on until all runs have ended."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self.answers)
            self.models.let_all()
            self.tools.let_all()
            while rows := await self.records.unended():
                for row in rows:
                    if row.state is RunState.PAUSED:
                        await _unless_late(self.control.resume(row.id, by=ME))
                for each in self.approvals.listing():
                    await _unless_late(self.approvals.approve(each.id, by=ME))
                await asyncio.sleep(0.01)
        self.answers.clear()

    async def judge(self) -> None:
        """What has to be true once all runs have ended."""
        await eventually(
            lambda: all((q.running_count, q.waiting_count) == (0, 0) for q in self._gateway.queues(most=0))
        )
        runs = await self.records.newest(ended=True, limit=10_000)
        called = Counter[str]()
        for run in runs:
            events = await self.records.events(run.id)
            self._judge_run(run, events)
            called["tool_calls"] += sum(event.type == "tool_called" for event in events)
        await self._judge_budget(called)

    def _judge_run(self, run: RunSummary, events: Sequence[RunEvent]) -> None:
        told = f"{run.id} {run.input}: {[event.type for event in events]}"
        ends = [i for i, event in enumerate(events) if event.type in ("answered", "failed", "killed", "exited")]
        assert ends == [len(events) - 1], told
        assert run.id not in self.killed or run.state is RunState.KILLED, told
        assert run.state in (RunState.SUCCEEDED, RunState.KILLED), f"{told} {events[-1]}"
        paused = False
        for event in events:
            paused = event.type == "paused" or (paused and event.type != "resumed")
            assert not (paused and event.type in ("model_called", "tool_called", "claimed")), told
        called = {event.data.call_id for event in events if event.type == "tool_called"}
        asked = {event.data.call_id for event in events if event.type == "approval_requested"}
        approved = {event.data.call_id for event in events if event.type == "approved"}
        assert called & asked <= approved, told
        for (_, call), times in [(key, times) for key, times in self.made.items() if key[0] == run.id]:
            assert call in called, f"{told}: {call} was never to be called"
            assert times == 1, f"{told}: {call} was called {times} times"

    @property
    def _org(self) -> Budget:
        return next(node for node in self.limits.listing().budgets if node.path == "org")

    async def _judge_budget(self, called: Counter[str]) -> None:
        """What is counted is the sum of the calls that are listed, and nothing is held any more."""
        await eventually(lambda: not self._org.reserved)
        assert isinstance(self.ledger.budgets, Budgeting)
        await self.ledger.budgets.journal.commit()
        sums, spent = charged(await self.calls.newest(100_000), "org"), self._org.spent
        assert {name: spent.get(name, 0) for name in sums} == dict(sums), (spent, sums)
        assert spent.get("tool_calls", 0) == called["tool_calls"], (spent, called)


def _wanted(index: int, kind: str, item: str) -> dict[str, Any]:
    arguments = {"request": f"{item} look"} if kind == "help" else {"item": item}
    function = {"name": _NAMES[kind], "arguments": json.dumps(arguments)}
    return {"index": index, "id": f"c{index}", "type": "function", "function": function}


async def _unless_late(act: Awaitable[object]) -> None:
    try:
        await act
    except (Conflict, NotFound):
        return


@asynccontextmanager
async def world(directory: Path, patch: pytest.MonkeyPatch, database: str | None = None) -> AsyncIterator[World]:
    """A world for the block, on its own SQLite or on `database`."""
    patch.setattr(approvals, "SWEEP_S", 0.005)
    patch.setattr(agents, "AgentHost", partial(AgentHost, concurrency=PLACES))
    here: list[World] = []
    async with scripted_engine(lambda request: here[0].say(request)) as engine:
        many = schema.Budget(tokens=["1000M/day"], runs=["1000"], tool_calls=["1M/day"])
        spent = schema.Budgets(limits={"org": many}, prices={"m": [schema.Price("2026-01-01", 0.7, 2.1)]})
        config = Config(
            state=str(directory),
            models={"m": schema.OpenAI(url=engine.url, slots=SLOTS, aliases=["default"])},
            budgets=spent,
            database=database,
        )
        base = Foundation(config, StateDirectory(directory))
        base.clock = clock = Later()
        await base.database.create_all()
        parts = Parts()
        services = registry.wire(base, parts)
        gateway, calls, meter = llm.wire(base, parts)
        offered = tools.wire(base, parts)
        known = agents.wire(base, parts, gateway, meter, services.caller, offered.sources)
        limits = budgets.wire(base, parts, gateway, known)
        it = World(base, clock, gateway, known, calls, limits)
        here.append(it)
        offered.sources["mcp"] = it.source
        for begin in parts.start:
            await begin()
        for spec in (BOSS, HELPER):
            await known.records.put(spec, host=SERVER, by=ME)
        running = [asyncio.create_task(main()) for main in parts.background]
        try:
            yield it
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            base.hub.close()
            for close in reversed(parts.close):
                await close()
            await base.database.aclose()

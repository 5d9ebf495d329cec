"""Runs under fire: a server, a module and an engine in processes of their own, killed at random moments.

Two agents do the same work: one in the module, one in the server whose tools are the module's service. Each run
makes five tool calls, three and two at once; `pay` must never be carried out twice, `look` may until it is settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmagentos.api import budgets, runs
from llmagentos.api.budgets import Budget, BudgetSpec, Limit
from llmagentos.api.client import ApiClient
from llmagentos.api.llm import CallInfo
from llmagentos.core.errors import LLMAgentOSError
from support.crash_engine import TOKENS, answer_to
from support.server import ServerProcess, environment, free_port

AGENTS = ("worker", "clerk")
AT_ONCE = 3
PATIENCE_S = 120.0
CLERK = """
kind: Agent
name: clerk
team: shop
model: crash
tools: [{service: till.look}, {service: till.pay}]
"""
PRICES = """
budgets:
  prices:
    crash: [{since: 2026-01-01, input: 0.7, output: 2.1}]
"""
MODULE = """
import sys, time
from llmagentos import Agent, Module, Service, tool
from llmagentos.services.service import idempotent

def note(what, item):
    with open(sys.argv[1], "a") as file:
        file.write(f"{what} {item} {time.time()}\\n")
    time.sleep(0.03)
    return f"{what} {item}"

class TillService(Service):
    @idempotent
    def look(self, item: str) -> str:
        "Look at it."
        return note("look", item)

    def pay(self, item: str) -> str:
        "Pay for it."
        return note("pay", item)

@tool(idempotent=True)
def look(item: str) -> str:
    "Look at it."
    return note("look", item)

@tool
def pay(item: str) -> str:
    "Pay for it."
    return note("pay", item)

module = Module("till")
module.register_service(TillService, name="till")
module.register_agent(Agent("worker", model="crash", tools=[look, pay], team="shop"))
module.start()
"""


@dataclass
class Report:
    """What came of it."""

    kills: Counter[str]
    runs: int = 0
    claims: int = 0
    unknown: int = 0
    """Calls whose outcome nobody knew, which were therefore not repeated."""
    repeated: int = 0
    """Calls that were under way, and that may be made again, which were."""
    cut_off: int = 0
    """Calls of models that were charged for though their replies reached no log: made again, and charged again."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        killed = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.runs} runs, {self.kills.total()} kills ({killed}), {self.claims - self.runs} takeovers, "
            f"{self.cut_off} model calls cut off and charged, {self.repeated} interrupted tool calls made again, "
            f"{self.unknown} of unknown outcome not repeated, "
            f"{len(self.wrong)} faults"
        )


class Range:
    """The three processes."""

    def __init__(self, directory: Path, seed: int, *, database: str | None = None) -> None:
        self._chance = random.Random(seed)  # moments, not secrets
        self._directory = directory
        self._port = free_port()
        url = f"http://127.0.0.1:{self._port}/v1"
        config = f"models:\n  crash: {{engine: openai, url: '{url}', aliases: [default]}}\n{PRICES}"
        self.server = ServerProcess(directory, config, database=database)
        self._notes = directory / "notes"
        self._notes.touch()
        self._calls = directory / "calls"
        self._calls.touch()
        (directory / "till.py").write_text(MODULE)
        (directory / "clerk.yaml").write_text(CLERK)
        self._module: subprocess.Popen[bytes] | None = None
        self._engine: subprocess.Popen[bytes] | None = None
        self.report = Report(Counter())
        self._listed = Counter[str]()

    def start(self) -> None:
        """Start all three, with the agents."""
        self._start_engine()
        self.server.start()
        self._start_module()
        done = self.server.llmctl("apply", "-f", "clerk.yaml")
        assert done.returncode == 0, done.stderr

    def stop(self) -> None:
        """End them."""
        for process in (self._module, self._engine, self.server.process):
            if process is not None:
                process.kill()
                process.wait(10)

    def _start_engine(self) -> None:
        tests = Path(__file__).parent.parent
        self._engine = self._spawn(
            [sys.executable, "-m", "support.crash_engine", str(self._port), str(self._calls)], PYTHONPATH=str(tests)
        )

    def _start_module(self) -> None:
        self._module = self._spawn(
            [sys.executable, str(self._directory / "till.py"), str(self._notes)], **self.server.env
        )

    def _spawn(self, command: Sequence[str], **env: str) -> subprocess.Popen[bytes]:
        with (self._directory / "others.log").open("ab") as log:
            given = environment(**env)
            return subprocess.Popen(command, cwd=self._directory, env=given, stdout=log, stderr=log)

    # The fire -------------------------------------------------------------------------------------

    async def fire(self, kills: int, told: Callable[[str], None] = lambda _: None) -> None:
        """Ask, and kill one of the three at a random moment, `kills` times; then wait for all runs."""
        async with self.server.client() as client:
            await budgets.put(client, "org", BudgetSpec([Limit("tokens", 10**9, "month"), Limit("runs", 50)]))
        for number in range(kills):
            await self._ask(number)
            await asyncio.sleep(self._chance.uniform(0.0, 0.9))
            await self._kill(self._chance.choice(("server", "module", "engine")))
            if (number + 1) % 20 == 0:
                told(f"{number + 1} kills")
        await self._settled()

    async def _ask(self, number: int) -> None:
        agents = [AGENTS[(number + i) % len(AGENTS)] for i in range(AT_ONCE)]
        async with self.server.client() as client:
            for place, agent in enumerate(agents):
                deadline = time.monotonic() + PATIENCE_S
                while True:
                    try:
                        await runs.start(client, agent, f"job{number}x{place}")
                        break
                    except LLMAgentOSError:  # the module has not told of its agent yet
                        assert time.monotonic() < deadline
                        await asyncio.sleep(0.05)

    async def _kill(self, name: str) -> None:
        self.report.kills[name] += 1
        if name == "server":
            self.server.kill()
            await asyncio.to_thread(self.server.start)
            return
        process = self._module if name == "module" else self._engine
        assert process is not None
        process.kill()
        process.wait(10)
        (self._start_module if name == "module" else self._start_engine)()

    async def _settled(self) -> None:
        async with self.server.client() as client, asyncio.timeout(PATIENCE_S):
            while await runs.listing(client, ended=False, limit=1):
                await asyncio.sleep(0.1)

    # What has to be true --------------------------------------------------------------------------

    async def judge(self) -> Report:
        """The report, with every fault that was found."""
        carried_out: dict[str, list[float]] = {}
        for line in self._notes.read_text().splitlines():
            what, item, at = line.split()
            carried_out.setdefault(f"{what} {item}", []).append(float(at))
        async with self.server.client() as client:
            found: list[runs.RunSummary] = []
            while page := await runs.listing(client, ended=True, limit=1000, offset=len(found)):
                found += page
            used = Counter[str]()
            for run in found:
                used.update(await self._judge_run(client, run, carried_out))
            await self._judge_budget(client, used)
        self.report.runs = len(found)
        return self.report

    async def _judge_run(
        self, client: ApiClient, run: runs.RunSummary, carried_out: dict[str, list[float]]
    ) -> Counter[str]:
        events = await runs.events(client, run.id)
        whole = await runs.get(client, run.id)
        wrong = self.report.wrong
        if whole.answer != answer_to(run.input):
            wrong.append(f"{run.id} ({run.input}): {run.state} {whole.answer or whole.error!r}")
        called = {event.data.call_id: event.data for event in events if isinstance(event.data, runs.ToolCalled)}
        answered = {e.data.call_id: (e.at, e.data) for e in events if isinstance(e.data, runs.ToolAnswered)}
        count = Counter(event.type for event in events)
        if not len(called) == count["tool_called"] == len(answered) == count["tool_answered"] == 5:
            wrong.append(f"{run.id}: {count['tool_called']} calls, {count['tool_answered']} answers")
        for call_id, call in called.items():
            self._judge_call(run.id, call, answered[call_id], carried_out)
        self.report.claims += count["claimed"]
        replies = [event.data for event in events if isinstance(event.data, runs.ModelReplied)]
        tokens = sum(reply.tokens_in + reply.tokens_out for reply in replies)
        listed = await client.get(f"/api/v1/models/calls?limit=1000&run={run.id}", list[CallInfo])
        self._listed.update(charged(listed, "org/shop"))
        return Counter({"tokens": tokens, "calls": len(replies), "tool_calls": len(called)})

    def _judge_call(
        self,
        run: str,
        call: runs.ToolCalled,
        answer: tuple[float, runs.ToolAnswered],
        carried_out: dict[str, list[float]],
    ) -> None:
        word = call.name.rpartition(".")[2]
        times = carried_out.get(f"{word} {call.arguments['item']}", [])
        at, data = answer
        if word == "pay" and len(times) > 1:
            self.report.wrong.append(f"{run}: {call.arguments} was paid {len(times)} times")
        if any(time > at for time in times):
            self.report.wrong.append(f"{run}: {word} {call.arguments} was carried out after it was settled")
        if data.error is None and not times:
            self.report.wrong.append(f"{run}: {word} {call.arguments} was never carried out")
        if data.error is not None:
            self.report.unknown += 1
        self.report.repeated += max(0, len(times) - 1)

    async def _judge_budget(self, client: ApiClient, used: Counter[str]) -> None:
        """A reply in a log was charged once, a tool call once, and no call that the engine never got."""
        spent, made = (await _spent(client)).spent, len(self._calls.read_text().splitlines())
        self.report.cut_off = spent["calls"] - used["calls"]
        fits = used["calls"] <= spent["calls"] <= made and spent["tokens"] == spent["calls"] * TOKENS
        counted = {name: spent.get(name, 0) for name in ("tokens", "money", "calls")}
        if counted != {name: self._listed[name] for name in counted}:
            self.report.wrong.append(f"the budget has {spent}, the calls that are listed {dict(self._listed)}")
        if not fits or spent["tool_calls"] != used["tool_calls"] or used["tokens"] != used["calls"] * TOKENS:
            self.report.wrong.append(f"the budget has {spent}, the runs' logs {dict(used)}, the engine {made} calls")


def charged(calls: Sequence[CallInfo], budget: str) -> Counter[str]:
    """What was counted in a node of the budgets for the calls that are listed."""
    found = [call for call in calls if call.budget is not None and f"{call.budget}/".startswith(f"{budget}/")]
    tokens, money = sum(call.charged for call in found), sum(call.money for call in found)
    return Counter({"tokens": tokens, "money": money, "calls": len(found)})


async def _spent(client: ApiClient) -> Budget:
    """The team's node, once nothing waits to be stored any more."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            while True:
                found = {node.path: node for node in (await budgets.listing(client)).budgets}
                if not found["org"].reserved:
                    break
                await asyncio.sleep(0.1)
    return {node.path: node for node in (await budgets.listing(client)).budgets}["org/shop"]

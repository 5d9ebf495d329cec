"""Budgets: the tree, who asks it (the gate and the ledger of runs), and the routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from llmagentos.agents.control import Control
from llmagentos.agents.ledger import PROGRAM, Ledger
from llmagentos.agents.log import Log, ModelTurn
from llmagentos.api.runs import Resumed, RunEvent, RunState
from llmagentos.core import log
from llmagentos.core.errors import CallerError, Conflict
from llmagentos.kernel.budgets import BudgetTree, Path
from llmagentos.kernel.prices import PriceTable
from llmagentos.llm.asking import Asked
from llmagentos.llm.budget_calls import Demand, Hold, Step
from llmagentos.llm.budget_limits import BudgetLimits, prices
from llmagentos.llm.budgeting import Budgeting
from llmagentos.llm.gateway import Gateway
from llmagentos.llm.metering import Measurement
from llmagentos.security.identity import Identity
from llmagentos.server.routes import budgets as routes
from llmagentos.server.wiring.agents import Agents
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.agents import AgentRecords
from llmagentos.storage.budgets import BudgetRecords
from llmagentos.storage.runs import RunRecords

BY = "budget"
"""As whom budgets pause runs and let them go on."""
TEAM = "default"
"""The team of agents that name none, and of callers."""

_log = log.get(__name__)


def wire(base: Foundation, parts: Parts, gateway: Gateway, agents: Agents) -> BudgetLimits:
    """After the agents: `gateway` and the ledger ask from now on. Raises `ConfigError` for limits that are none.

    The limits are for the console.
    """
    settings = base.config.budgets
    tree = BudgetTree(base.clock)
    records = BudgetRecords(base.database, base.clock, idle_days=base.config.retention.budgets_days)
    limits = BudgetLimits(tree, records, settings, waiting=lambda: budgeting.waiting())
    budgeting = Budgeting(
        tree,
        records,
        base.clock,
        prices=prices(settings),
        announce=lambda alert: base.hub.publish("budgets", alert),
        on_limit=limits.on_limit,
    )
    places = _Places(agents.ledger, agents.records, settings.organization)
    budgeting.path_of, budgeting.step_of = places.path_of, places.step_of
    _steer(budgeting, agents.ledger, agents.control)

    def holding(measured: Measurement, asked: Asked, demand: Demand) -> AbstractAsyncContextManager[Hold]:
        return budgeting.holding(measured, places.of_caller(asked.caller), asked.run_id, demand)

    async def begin() -> None:
        live = [row.id for row in await RunRecords(base.database, base.clock).unended()]
        await limits.begin(live)
        states = {run: await agents.ledger.state(run) for run in live}
        await budgeting.begin(live, [run for run, state in states.items() if _paused_by_budget(state)])
        for run in [run for run, state in states.items() if state.state is RunState.WAITING]:
            budgeting.rests(run)

    gateway.use_budgets(holding)
    agents.ledger.budgets = budgeting
    agents.ledger.cost = _cost(gateway, prices(settings))
    agents.ledger.on_change.append(lambda run, state, events: _changed(budgeting, run, state, events))
    parts.start.append(begin)
    parts.background.append(budgeting.watch)
    parts.prune += [budgeting.prune, limits.prune]
    parts.close.append(budgeting.journal.commit)
    parts.endpoints += routes.endpoints(limits)
    return limits


def _cost(gateway: Gateway, table: PriceTable) -> Callable[[Log], int]:
    """What a run has cost: the tokens of its calls at the prices of the day when it was asked for."""

    def name(model: str) -> str:
        try:
            return gateway.chat_model(model).name
        except CallerError:  # it is not configured any more
            return model

    def cost(state: Log) -> int:
        used = state.by_model
        return sum(table.cost(name(model), given, made, state.created_at) for model, given, made in used)

    return cost


class _Places:
    """Where runs and callers stand in the tree."""

    def __init__(self, ledger: Ledger, records: AgentRecords, organization: str) -> None:
        self._ledger = ledger
        self._records = records
        self._root = organization

    async def path_of(self, run: str) -> Path:
        """Below the run that asked for it, or else below its agent."""
        request = (await self._ledger.state(run)).request
        if request.parent is not None:
            return (*await self.path_of(request.parent), run)
        record = await self._records.version(request.agent, request.version)
        team = record.spec.team if record is not None else None
        return (self._root, team or TEAM, request.agent, run)

    async def step_of(self, run: str) -> Step | None:
        """A call that is made again by the run's next host comes after as many replies. Those of programs never are."""
        state = await self._ledger.state(run)
        if state.open_model is None:
            return None
        return Step(str(sum(isinstance(turn, ModelTurn) for turn in state.turns)), state.fence)

    def of_caller(self, caller: Identity) -> Path:
        """A caller without a run, by kind and name."""
        return (self._root, TEAM, re.sub(r"[^A-Za-z0-9._:@+-]", "_", str(caller))[:100])


def _steer(budgeting: Budgeting, ledger: Ledger, control: Control) -> None:
    """Have budgets pause runs and let them go on."""

    async def pause(run: str, reason: str) -> bool:
        await control.pause(run, by=BY, reason=reason)
        return await ledger.host_of(run) == PROGRAM

    async def resume(run: str) -> None:
        try:
            await control.resume(run, by=BY)
        except Conflict as error:  # somebody was faster, or it ended
            _log.debug("not resumed", run_id=run, reason=error.message)

    budgeting.pause, budgeting.resume = pause, resume


def _changed(budgeting: Budgeting, run: str, state: Log, events: Sequence[RunEvent]) -> None:
    if any(isinstance(event.data, Resumed) for event in events):
        budgeting.resumed(run)
    if state.fence:
        budgeting.worked(run, int(state.active_s + max(0.0, state.last_at - state.claimed_at)))
    if state.state is RunState.WAITING:
        budgeting.rests(run)
    if state.ended_at is not None:
        budgeting.ended(run)


def _paused_by_budget(state: Log) -> bool:
    return state.state is RunState.PAUSED and state.paused is not None and state.paused.by == BY

"""Agents and their runs: the ledger, the server's own host of agents, the routes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from llmagentos.agents.absent import Absent
from llmagentos.agents.approvals import Approvals
from llmagentos.agents.control import Control
from llmagentos.agents.definition import read_agent
from llmagentos.agents.embedded import GatewayModels, LedgerBackend
from llmagentos.agents.host import AgentHost
from llmagentos.agents.hosted import Hosted
from llmagentos.agents.ledger import SERVER, Ledger
from llmagentos.agents.memory_tools import with_memory
from llmagentos.agents.programs import Programs
from llmagentos.agents.run_tools import Grants, RunTools, require_grant
from llmagentos.agents.tool_agents import AgentTools, Runs
from llmagentos.agents.tools import Services, Source, Tool, Toolset, described, resolve
from llmagentos.api.agents import AgentSpec, ToolInfo, ToolsBy, ToolUse
from llmagentos.api.hosting import Claim
from llmagentos.api.runs import Wait
from llmagentos.core import log
from llmagentos.core.errors import CallerError, InvalidInput, nearest
from llmagentos.llm.gateway import Gateway
from llmagentos.llm.metering import Meter
from llmagentos.security.identity import Identity, Kind
from llmagentos.server.routes import agents, run_tools, runs
from llmagentos.server.routes import control as routes
from llmagentos.server.wiring import approvals, conversations, memory
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.server.wiring.standing import standing_of
from llmagentos.storage.agents import AgentRecords
from llmagentos.storage.runs import RunRecords

HOST = Identity(Kind.MODULE, "server")
"""As whom the server's own agents call models and services."""

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Agents:
    """What the console needs of agents and runs."""

    ledger: Ledger
    control: Control
    programs: Programs
    records: AgentRecords
    hosted: Hosted
    waits: runs.Waits
    approvals: Approvals
    memories: memory.Memories


def wire(
    base: Foundation, parts: Parts, gateway: Gateway, meter: Meter, services: Services, sources: dict[str, Source]
) -> Agents:
    """`gateway` for model calls, `meter` tells of them, `services` for calls to services, `sources` for other tools.

    Raises `ConfigError` for a faulty agents file.
    """
    records = AgentRecords(base.database, base.clock)
    run_records = RunRecords(base.database, base.clock, days=base.config.retention.runs_days)

    async def spec_of(name: str, version: int) -> AgentSpec | None:
        record = await records.version(name, version)
        if record is None or record.spec.tools_by != "auto":
            return record.spec if record is not None else None
        return replace(record.spec, tools_by=_tools_by(gateway, record.spec.model))

    async def tools_of(claim: Claim) -> Toolset:
        found = await absent.watched(claim.run, resolve(claim.agent, {}, services, sources))
        return with_memory(found, claim.agent, memories.of_runs)

    ledger = Ledger(run_records, base.hub, base.clock, spec_of)
    absent = _absent(ledger)
    ledger.deny, grants = base.config.tools.deny, base.config.tools.modules
    attach = conversations.wire(base, parts, gateway, ledger)
    memories = memory.wire(base, parts, gateway, HOST, ledger, records)
    hosted = Hosted(records, base.clock)
    host = AgentHost(LedgerBackend(ledger, f"{SERVER}/{os.getpid()}"), GatewayModels(gateway, HOST), tools_of)
    control = Control(ledger, run_records, gateway, stop=host.cancel)
    sources["agent"] = AgentTools(Runs(ledger, control, run_records), lambda name: agents.found(records, name)).tools
    programs = Programs(ledger, base.token_records, base.clock, forget=base.authenticator.forget, flush=meter.flush)
    meter.told.append(programs.record)
    configured = [read_agent(path) for path in base.config.agents]

    gateway.know_runs(standing_of(ledger))

    async def begin() -> None:
        await ledger.begin()
        await control.begin()
        for spec in configured:
            _, change = await records.put(spec, host=SERVER, by="llmagentos.yaml")
            _log.info("agent of the configuration", agent=spec.name, change=change)

    async def check(spec: AgentSpec) -> list[str]:
        await _require_model(gateway, spec)
        tools = await tools_now(spec, [], None)
        return [f"{tool.source}: {tool.error}" for tool in tools if tool.error is not None]

    async def tools_now(spec: AgentSpec, functions: Sequence[str], by: Identity | None) -> list[ToolInfo]:
        return await described(spec, functions, services, sources if by is None else _granted(by, sources, grants))

    parts.start.append(begin)
    waiting = approvals.wire(base, parts, ledger)
    parts.background += [ledger.sweep, host.serve, programs.tidy]
    parts.prune.append(run_records.prune)
    parts.endpoints += agents.endpoints(records, control, hosted, check, tools_now)
    lent, waits = RunTools(ledger, spec_of, sources, grants, absent), _waits(gateway, absent)
    parts.endpoints += runs.endpoints(ledger, records, hosted, waits, programs.renewed, attach, lent.require)
    parts.endpoints += run_tools.endpoints(ledger, lent)
    parts.endpoints += routes.endpoints(ledger, control, programs, records)
    return Agents(ledger, control, programs, records, hosted, waits, waiting, memories)


def _absent(ledger: Ledger) -> Absent:
    absent = Absent(ledger.state)
    ledger.on_change.append(absent.changed)
    return absent


def _waits(gateway: Gateway, absent: Absent) -> runs.Waits:
    def waits() -> Callable[[str], Wait | None]:
        calls, away = gateway.waiting_runs(), absent.told()

        def of(run: str) -> Wait | None:
            if (call := calls.get(run)) is not None:
                return Wait(call.call.model, call.position, call.reason)
            return Wait("", 0, "tools", away[run]) if run in away else None

        return of

    return waits


def _granted(by: Identity, sources: dict[str, Source], grants: Grants) -> dict[str, Source]:
    """`sources` for the agents of `by`: for a module nothing is asked of systems that it is not to use."""

    async def asked(use: ToolUse) -> Sequence[Tool]:
        require_grant(grants, by, use.source)
        return await sources[use.kind](use)

    return dict.fromkeys(sources, asked)


def _tools_by(gateway: Gateway, model: str) -> ToolsBy:
    """How a model asks for tools, as the configuration of its engine says."""
    try:
        return gateway.chat_model(model).tools
    except CallerError:  # its runs will say that there is no such model
        return "schema"


async def _require_model(gateway: Gateway, spec: AgentSpec) -> None:
    models = [model for model in await gateway.models() if model.use == "chat"]
    known = {name for model in models for name in (model.name, *model.aliases)} | ({"default"} if models else set())
    if spec.model not in known:
        close = nearest(spec.model, known)
        raise InvalidInput(
            f"model: there is no chat model {spec.model!r}; there are {', '.join(sorted(known)) or 'none'}",
            hint=f"did you mean {close!r}?" if close else "`llmctl models` lists models",
        )

"""The console."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from llmagentos.api.agents import AgentInfo
from llmagentos.api.llm import CallInfo
from llmagentos.api.memory import Fact
from llmagentos.api.nodes import Node, NodeSummary
from llmagentos.api.runs import NewRun, Run, RunSummary
from llmagentos.api.sessions import SessionInfo
from llmagentos.fleet.availability import Change
from llmagentos.llm.budget_limits import BudgetLimits
from llmagentos.llm.gateway import Gateway
from llmagentos.observe.telemetry import Telemetry
from llmagentos.security.identity import Identity
from llmagentos.server import dispatch
from llmagentos.server.approving import Approving
from llmagentos.server.console.login import Attempts, LoginLinks
from llmagentos.server.console.refusals import as_page, as_page_for_browsers
from llmagentos.server.console.render import Pages
from llmagentos.server.console.sources import Sources
from llmagentos.server.endpoint import Endpoint
from llmagentos.server.respond import Responder
from llmagentos.server.routes import (
    console,
    job_files,
    job_pages,
    login,
    memory_pages,
    model_pages,
    node_pages,
    schedule_pages,
    session_pages,
    telemetry_pages,
)
from llmagentos.server.routes.agents import found, info
from llmagentos.server.routes.memory_pages import MemorySources
from llmagentos.server.routes.model_pages import ModelSources
from llmagentos.server.routes.models import Loading
from llmagentos.server.routes.runs import with_waits
from llmagentos.server.routes.session_pages import SessionSources
from llmagentos.server.wiring.agents import Agents
from llmagentos.server.wiring.fleet import Fleet
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.server.wiring.jobs import job_sources, schedule_sources
from llmagentos.server.wiring.registry import Services
from llmagentos.storage.calls import CallRecords
from llmagentos.storage.runs import RunRecords


def wire(
    base: Foundation,
    parts: Parts,
    *,
    services: Services,
    gateway: Gateway,
    calls: CallRecords,
    agents: Agents,
    fleet: Fleet,
    budgets: BudgetLimits,
    telemetry: Telemetry,
    approving: Approving,
) -> None:
    """Its pages, each with its own look of errors, and the API's login links."""
    pages = Pages(base.clock)
    most = base.config.server.limits.body_bytes
    errors = as_page(pages)
    responder = Responder(base.authenticator, base.record_act, max_body=most, errors=errors)
    made = LoginLinks(base.clock)
    form = login.Login(pages, base.authenticator, made, Attempts(base.clock), base.token_records.holds)
    sources = _sources(base, services, gateway, agents, fleet, budgets, approving)
    shown = [
        *console.endpoints(sources, pages, base.hub, base.authenticator),
        *model_pages.endpoints(_model_sources(gateway, calls), pages),
        *session_pages.endpoints(_session_sources(agents), pages),
        *memory_pages.endpoints(_memory_sources(agents), pages),
        *_node_pages(pages, fleet),
        *job_pages.endpoints(job_sources(fleet.work), pages),
        job_files.page(fleet.work.files, fleet.work.jobs.show),
        *schedule_pages.endpoints(schedule_sources(fleet.work), pages),
        *telemetry_pages.endpoints(telemetry, pages, fleet.nodes.names),
        login.logout(base.authenticator),
    ]
    parts.endpoints += login.links(made)
    parts.pages += [*login.routes(form, responder, errors), *dispatch.routes(shown, responder)]
    parts.unknown = as_page_for_browsers(pages)


def _model_sources(gateway: Gateway, calls: CallRecords) -> ModelSources:
    loading = Loading(gateway)

    async def newest_calls(limit: int) -> list[CallInfo]:
        return await calls.newest(limit)

    return ModelSources(
        models=gateway.models,
        queues=lambda most: gateway.queues(most=most),
        calls=newest_calls,
        load=loading.load,
        unload=loading.unload,
    )


def _session_sources(agents: Agents) -> SessionSources:
    sessions = agents.memories.sessions

    async def listing(user: str | None, limit: int) -> list[SessionInfo]:
        return await sessions.listing(user=user, limit=limit)

    return SessionSources(listing=listing, show=sessions.show, delete=sessions.delete)


def _memory_sources(agents: Agents) -> MemorySources:
    facts = agents.memories.facts

    async def listing(user: str, agent: str | None, limit: int) -> list[Fact]:
        return await facts.listing(user, agent, limit=limit)

    async def forget(user: str, fact: str) -> bool:
        return bool(await facts.forget(user, fact=fact))

    async def remembering() -> list[str]:
        return [one.spec.name for one in await agents.records.all() if one.spec.memory.long_term]

    return MemorySources(listing=listing, search=agents.memories.search, forget=forget, agents=remembering)


def _node_pages(pages: Pages, fleet: Fleet) -> list[Endpoint]:
    nodes, lengths = fleet.nodes, fleet.jobs.queue_lengths

    async def listing(expression: str | None) -> list[NodeSummary]:
        return await nodes.listing(await lengths(), expression)

    async def one(name: str) -> Node:
        return await nodes.show(name, await lengths())

    def changing(change: Change) -> Callable[[str], Awaitable[NodeSummary]]:
        async def do(name: str) -> NodeSummary:
            return await nodes.change(name, change, await lengths())

        return do

    async def revoke(name: str) -> NodeSummary:
        return await nodes.revoke(name, await lengths())

    async def remove(name: str) -> None:
        await nodes.remove(name)
        await fleet.jobs.drop_node(name)

    acts: dict[str, Callable[[str], Awaitable[object]]] = {
        "cordon": changing("cordon"),
        "uncordon": changing("uncordon"),
        "drain": changing("drain"),
        "revoke": revoke,
        "remove": remove,
    }
    return node_pages.endpoints(pages, listing=listing, node=one, recent=fleet.jobs.listing, acts=acts)


def _sources(
    base: Foundation,
    services: Services,
    gateway: Gateway,
    agents: Agents,
    fleet: Fleet,
    budgets: BudgetLimits,
    approving: Approving,
) -> Sources:
    ledger = agents.ledger

    async def all_agents() -> list[AgentInfo]:
        return [info(record, agents.hosted) for record in await agents.records.all()]

    async def one_agent(name: str) -> AgentInfo:
        return info(await found(agents.records, name), agents.hosted)

    async def one_run(prefix: str) -> Run:
        found = await ledger.get(await ledger.resolve(prefix))
        return with_waits([found], agents.waits)[0]

    async def ask(request: NewRun, identity: Identity) -> RunSummary:
        agent = await found(agents.records, request.agent)
        return await ledger.create(agent, request.input, by=str(identity), session=request.session)

    async def all_nodes() -> list[NodeSummary]:
        return await fleet.nodes.listing(await fleet.jobs.queue_lengths())

    async def one_node(name: str) -> Node:
        return await fleet.nodes.show(name, await fleet.jobs.queue_lengths())

    return Sources(
        instances=services.registry.directory.all,
        models=gateway.models,
        agents=all_agents,
        agent=one_agent,
        runs=ledger.newest,
        run_counts=RunRecords(base.database, base.clock).counts,
        run=one_run,
        run_events=ledger.events,
        draft=ledger.drafts.now,
        ask=ask,
        kill=lambda run, identity: agents.control.kill(run, by=str(identity)),
        approvals=approving.known,
        approve=approving.approve,
        deny=approving.deny,
        pause=lambda run, identity: agents.control.pause(run, by=str(identity)),
        resume=lambda run, identity: agents.control.resume(run, by=str(identity)),
        jobs=fleet.jobs.listing,
        budgets=budgets.listing,
        nodes=all_nodes,
        node=one_node,
    )

"""Where tools of agents come from, beside functions and services."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec

from llmagentos.agents.mcp.servers import Servers
from llmagentos.agents.tool_a2a import A2aTools
from llmagentos.agents.tool_playbooks import PlaybookCall, PlaybookTools
from llmagentos.agents.tools import Source
from llmagentos.api.jobs import JobSpec
from llmagentos.core import log
from llmagentos.core.errors import DeadlineExceeded, LLMAgentOSError, ServiceError
from llmagentos.fleet import waiting
from llmagentos.fleet.waiting import Outcome
from llmagentos.server.routes import mcp
from llmagentos.server.wiring.agents import Agents
from llmagentos.server.wiring.fleet import Fleet
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.mcp import McpRecords
from llmagentos.storage.remote_tasks import RemoteTasks

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Tools:
    """`sources` by kind of tool: what comes up later adds itself."""

    servers: Servers
    sources: dict[str, Source] = field(default_factory=dict)


def wire(base: Foundation, parts: Parts) -> Tools:
    """MCP servers with their routes, and remote agents. Before the agents, which use them."""
    servers = Servers(base.config.mcp, McpRecords(base.database, base.clock), base.clock, state=base.state.root / "mcp")
    parts.start.append(servers.begin)
    parts.close.append(servers.aclose)
    parts.endpoints += mcp.endpoints(servers)
    tasks = RemoteTasks(base.database, base.clock, days=base.config.retention.runs_days)
    parts.prune.append(tasks.prune)
    remote = A2aTools(base.config.a2a, base.clock, tasks)
    return Tools(servers, {"mcp": servers.tools, "a2a": remote.tools})


class PlaybookFailed(ServiceError):
    """The job did not succeed."""

    code = "playbook_failed"


def connect(base: Foundation, parts: Parts, tools: Tools, agents: Agents, fleet: Fleet) -> None:
    """What needs agents and nodes: playbooks as jobs. Their bundles are kept as long as an agent names them."""
    jobs = fleet.jobs

    async def run(call: PlaybookCall) -> Outcome:
        spec = JobSpec(
            bundle=call.bundle,
            playbook=call.playbook,
            limit=",".join(call.nodes),
            extra_vars=call.vars,
            idempotency_key=call.key,
        )
        job = (await jobs.submit(spec, call.by)).summary.id
        try:
            # A little before the caller's own limit, to say which job it is.
            async with asyncio.timeout(max(0.9 * call.timeout, call.timeout - 1.0)):
                outcome = await waiting.ended(jobs, base.hub, job)
        except TimeoutError:
            told = f"the job {job} has not ended within {call.timeout:.3g} s; it goes on"
            raise DeadlineExceeded(told, hint=f"`llmctl job show {job}`") from None
        if outcome.state != "succeeded":
            raise PlaybookFailed(msgspec.json.encode(outcome).decode(), job=job)
        return outcome

    async def keep() -> None:
        for agent in await agents.records.all():
            for version in await agents.records.versions(agent.name):
                for digest in {tool.bundle for tool in version.spec.tools if tool.bundle is not None}:
                    try:
                        await jobs.bundle(digest)
                    except LLMAgentOSError as error:
                        _log.warning("a playbook of an agent is gone", agent=agent.name, reason=error.message)

    async def plain(call: PlaybookCall) -> object:
        return msgspec.to_builtins(await run(call))

    tools.sources["playbook"] = PlaybookTools(plain).tools
    parts.prune.insert(0, keep)  # before bundles that nothing refers to are deleted

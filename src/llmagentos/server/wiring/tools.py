"""Where tools of agents come from, beside functions and services."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmagentos.agents.mcp.servers import Servers
from llmagentos.agents.tools import Source
from llmagentos.server.routes import mcp
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.mcp import McpRecords


@dataclass(frozen=True, slots=True)
class Tools:
    """`sources` by kind of tool: what comes up later adds itself."""

    servers: Servers
    sources: dict[str, Source] = field(default_factory=dict)


def wire(base: Foundation, parts: Parts) -> Tools:
    """MCP servers and their routes. Before the agents, which use them."""
    servers = Servers(base.config.mcp, McpRecords(base.database, base.clock), base.clock, state=base.state.root / "mcp")
    parts.start.append(servers.begin)
    parts.close.append(servers.aclose)
    parts.endpoints += mcp.endpoints(servers)
    return Tools(servers, {"mcp": servers.tools})

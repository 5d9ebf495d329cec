"""MCP servers on the wire: which there are, what state they are in, and the client's calls."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

import msgspec

from llmagentos.api.client import ApiClient
from llmagentos.core.config.outside import McpServer

McpState = Literal["idle", "connecting", "ready", "failed"]
"""idle: not used yet, or not since its connection ended."""


class McpTool(msgspec.Struct, frozen=True):
    """A tool of an MCP server, checked and bounded."""

    name: str
    doc: str
    parameters: dict[str, Any]
    """JSON Schema of the arguments."""


class McpServerInfo(msgspec.Struct, frozen=True):
    """An MCP server as it is now. Times are seconds since the epoch, UTC."""

    name: str
    transport: Literal["stdio", "http"]
    target: str
    """The program, or the address without its query."""
    source: Literal["config", "api"]
    state: McpState
    version: str | None = None
    """Of the protocol, as agreed on."""
    server: str | None = None
    """How the server calls itself."""
    since: float | None = None
    connections: int = 0
    """How often it was connected to (or started) since our server began."""
    tools: list[McpTool] = []
    refused: list[str] = []
    """Tools that are not used, and why."""
    error: str | None = None


async def listing(client: ApiClient) -> list[McpServerInfo]:
    """Every MCP server, by name."""
    return await client.get("/api/v1/mcp/servers", list[McpServerInfo])


async def get(client: ApiClient, name: str) -> McpServerInfo:
    """One MCP server; it is connected to if need be. Raises `NotFound`."""
    return await client.get(f"/api/v1/mcp/servers/{quote(name, safe='')}", McpServerInfo, timeout=120)


async def put(client: ApiClient, name: str, server: McpServer) -> McpServerInfo:
    """Register an MCP server, or change one. Raises `Conflict` for one of the configuration file."""
    return await client.put(f"/api/v1/mcp/servers/{quote(name, safe='')}", server, McpServerInfo)


async def delete(client: ApiClient, name: str) -> None:
    """Forget an MCP server and end its process. Raises `NotFound` or `Conflict`."""
    await client.delete(f"/api/v1/mcp/servers/{quote(name, safe='')}")

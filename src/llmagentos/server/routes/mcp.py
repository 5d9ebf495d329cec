"""MCP servers whose tools agents use; and the server itself as one, at /mcp."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmagentos.agents.mcp.servers import Servers
from llmagentos.api.mcp import McpServerInfo
from llmagentos.core.config.outside import McpServer
from llmagentos.core.errors import InvalidInput
from llmagentos.security.identity import Identity, Permission
from llmagentos.server.endpoint import Call, Endpoint

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def endpoints(servers: Servers) -> list[Endpoint]:
    """`servers` are those of the configuration and those that were registered here."""

    async def listing(_: Call) -> list[McpServerInfo]:
        return servers.listing()

    async def get(call: Call) -> McpServerInfo:
        return await servers.show(call.path["name"])

    async def put(call: Call) -> McpServerInfo:
        name = call.path["name"]
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name!r} cannot be a name", hint="letters, digits, '.', '_' and '-', at most 63")
        return await servers.put(name, call.body, by=str(call.identity))

    async def delete(call: Call) -> None:
        await servers.delete(call.path["name"])

    read, write = Permission.AGENTS_READ, Permission.TOOLS_WRITE
    all_, one = "/api/v1/mcp/servers", "/api/v1/mcp/servers/{name}"
    return [
        Endpoint("GET", all_, read, listing, returns=list[McpServerInfo], summary="List MCP servers"),
        Endpoint(
            "GET", one, read, get, returns=McpServerInfo, summary="Show one MCP server, connected to if that works"
        ),
        Endpoint(
            "PUT",
            one,
            write,
            put,
            body=McpServer,
            returns=McpServerInfo,
            summary="Register an MCP server (a program that the server starts, or an address), or change one",
            audited=True,
        ),
        Endpoint("DELETE", one, write, delete, summary="Forget an MCP server and end its program", audited=True),
    ]


Speak = Callable[[Scope, Receive, Send, Identity], Awaitable[None]]
"""Answers one request of an MCP client. Raises `Unavailable` when MCP is not installed."""


class _Spoken(Response):
    """An answer that the package `mcp` writes itself."""

    def __init__(self, speak: Speak, identity: Identity) -> None:
        super().__init__()
        self._speak = speak
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._speak(scope, receive, send, self._identity)


def outward(speak: Speak, ready: Callable[[], Awaitable[None]]) -> list[Endpoint]:
    """`speak` answers clients; `ready` waits until it can. What a client may call is decided tool by tool."""

    async def answer(call: Call) -> Response:
        await ready()
        return _Spoken(speak, call.identity)

    summary = "MCP, streamable HTTP, stateless: the agents and service methods that the caller may use"
    return [
        Endpoint(method, "/mcp", Permission.TOOLS_USE, answer, summary=summary) for method in ("POST", "GET", "DELETE")
    ]

"""All MCP servers: those of the configuration, and those that were registered through the API."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from llmagentos.agents.mcp.connection import Connection, Open, Session, same
from llmagentos.agents.tools import CalledBy, Tool
from llmagentos.api.agents import ToolUse
from llmagentos.api.mcp import McpServerInfo, McpTool
from llmagentos.core.clock import Clock
from llmagentos.core.config.outside import McpServer
from llmagentos.core.errors import ConfigError, Conflict, NotFound, nearest

MOST_SERVERS = 200


class Records(Protocol):
    """What this needs of storage."""

    async def all(self) -> Mapping[str, McpServer]: ...
    async def put(self, name: str, server: McpServer, *, by: str) -> None: ...
    async def delete(self, name: str) -> None: ...


@asynccontextmanager
async def open_session(
    name: str, spec: McpServer, environment: Mapping[str, str], workdir: str
) -> AsyncIterator[Session]:
    """A connection by the package `mcp`. Raises `ConfigError` when it is not installed."""
    try:
        module = await asyncio.to_thread(importlib.import_module, "llmagentos.agents.mcp.session")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"MCP servers need a package that is not installed: {error.name}", hint="pip install 'llmagentos[mcp]'"
        ) from None
    async with module.Session(name).opened(spec, environment, workdir) as session:
        yield session


class Servers:
    """`configured` by name; `state` is where programs get their directories."""

    def __init__(
        self,
        configured: Mapping[str, McpServer],
        records: Records,
        clock: Clock,
        *,
        state: Path,
        open_: Open = open_session,
    ) -> None:
        self._records = records
        self._clock = clock
        self._state = state
        self._open = open_
        self._all: dict[str, Connection] = {}
        for name, spec in configured.items():
            self._add(name, spec, "config")

    def _add(self, name: str, spec: McpServer, source: Literal["config", "api"]) -> Connection:
        made = Connection(name, spec, source, workdir=self._state / name, clock=self._clock, open_=self._open)
        self._all[name] = made
        return made

    async def begin(self) -> None:
        """At the server's start: those that were registered. The configuration's own names win."""
        for name, spec in (await self._records.all()).items():
            if name not in self._all:
                self._add(name, spec, "api")

    async def aclose(self) -> None:
        """End every connection and program."""
        await asyncio.gather(*(one.retire() for one in self._all.values()))

    def listing(self) -> list[McpServerInfo]:
        """All, by name, as they are now: none is connected to for it."""
        return [self._all[name].info() for name in sorted(self._all)]

    async def show(self, name: str) -> McpServerInfo:
        """One, connected to if that works. Raises `NotFound`."""
        found = self._found(name)
        await asyncio.gather(found.tools(), return_exceptions=True)  # what is wrong is part of the answer
        return found.info()

    async def put(self, name: str, spec: McpServer, *, by: str) -> McpServerInfo:
        """Register or change one. Raises `Conflict` for one of the configuration."""
        known = self._all.get(name)
        if known is not None and known.source == "config":
            raise Conflict(f"the MCP server {name!r} stands in llmagentos.yaml", hint="change it there")
        if known is None and len(self._all) >= MOST_SERVERS:
            raise Conflict(f"there are {MOST_SERVERS} MCP servers already")
        await self._records.put(name, spec, by=by)
        if known is None or not same(known.spec, spec):
            if known is not None:
                await known.retire()
            known = self._add(name, spec, "api")
        return known.info()

    async def delete(self, name: str) -> None:
        """Forget one. Raises `NotFound`, or `Conflict` for one of the configuration."""
        known = self._found(name)
        if known.source == "config":
            raise Conflict(f"the MCP server {name!r} stands in llmagentos.yaml", hint="take it out there")
        await self._records.delete(name)
        del self._all[name]
        await known.retire()

    def _found(self, name: str) -> Connection:
        known = self._all.get(name)
        if known is None:
            close = nearest(name, self._all)
            raise NotFound(
                f"there is no MCP server {name!r}",
                hint=f"did you mean {close!r}?" if close else "`mcp:` in llmagentos.yaml names them",
            )
        return known

    async def tools(self, use: ToolUse) -> Sequence[Tool]:
        """The tools that an agent's entry stands for. Raises `NotFound`, `Unavailable` or `ConfigError`."""
        assert use.mcp is not None
        server = self._found(use.mcp)
        offered = {tool.name: tool for tool in (await server.tools()).tools}
        for wanted in use.only:
            if wanted not in offered:
                close = nearest(wanted, offered)
                raise NotFound(
                    f"the MCP server {use.mcp!r} has no tool {wanted!r}",
                    hint=f"did you mean {close!r}?" if close else f"`llmctl mcp {use.mcp}` lists its tools",
                )
        return [_tool(server, offered[name], use) for name in use.only or offered]


def _tool(server: Connection, offered: McpTool, use: ToolUse) -> Tool:
    async def invoke(arguments: Mapping[str, Any], timeout: float, _: CalledBy) -> Any:
        return await server.call(offered.name, arguments, timeout)

    # Whether a call may be repeated is not taken from the server's own hints: they are a stranger's word.
    name = f"{server.name}.{offered.name}"
    return Tool(name, offered.doc, offered.parameters, False, invoke, tuple(use.examples))

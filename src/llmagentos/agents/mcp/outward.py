"""Our agents and services as an MCP server: streamable HTTP, stateless, for clients of 2026-07-28 and before.

A client sees the tools that its identity may use, and nothing is kept between its requests.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import mcp_types as types
import msgspec
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from starlette.types import Receive, Scope, Send

from llmagentos.agents.arguments import misfit
from llmagentos.agents.door import Door
from llmagentos.agents.following import is_end
from llmagentos.agents.records import Agent
from llmagentos.agents.tool_agents import PARAMETERS
from llmagentos.api.registry import MethodSpec
from llmagentos.api.runs import MAX_INPUT, Run, RunEvent
from llmagentos.core.errors import DeadlineExceeded, LLMAgentOSError, ServiceError
from llmagentos.core.ids import new_id
from llmagentos.security.identity import Identity, Permission

IDENTITY = "llmagentos.identity"
"""In the scope of a request: who asks."""
CALL_S = 3600.0
"""Longest call."""
_PAGE = 200
_TTL_MS = 10_000
_SESSION = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "description": "Calls of one session know the last"}

AgentsOf = Callable[[], Awaitable[Sequence[Agent]]]
MethodsOf = Callable[[], Sequence[tuple[str, MethodSpec]]]
"""Every method that is offered now, with its service."""
Audit = Callable[[Identity, str, int], Awaitable[None]]
"""Remembers that an identity called a tool, and the HTTP status that fits what came of it."""
CallService = Callable[[Identity, str, str, Mapping[str, Any], float], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Offered:
    """A tool of ours, and what is behind it."""

    tool: types.Tool
    agent: str | None = None
    method: tuple[str, str] | None = None


class Outward:
    """`door` leads to agents; `methods` are offered by services, and called by `call`; `audit` is told of each call."""

    def __init__(
        self, door: Door, methods: MethodsOf, call: CallService, version: str, audit: Audit, *, call_s: float = CALL_S
    ) -> None:
        self._door = door
        self._audit = audit
        self._call_s = call_s
        self._methods = methods
        self._call = call
        server: Server[Any] = Server(
            "llmagentos",
            version=version,
            title="LLMAgentOS",
            instructions="Agents (ask_NAME) and methods of services (SERVICE__METHOD) of this server.",
            cache_hints={"tools/list": CacheHint(ttl_ms=_TTL_MS, scope="private")},
            on_list_tools=self._list,
            on_call_tool=self._called,
            get_tool_input_schema=lambda _: None,
        )
        self._manager = StreamableHTTPSessionManager(server, stateless=True)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """While requests are answered."""
        async with self._manager.run():
            yield

    async def answer(self, scope: Scope, receive: Receive, send: Send, identity: Identity) -> None:
        """One request, by `identity`."""
        await self._manager.asgi_app({**scope, IDENTITY: identity}, receive, send)

    async def _list(
        self, ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        cursor = params.cursor if params is not None else None
        if cursor is not None and not (cursor.isdecimal() and len(cursor) < 9):
            raise MCPError(types.INVALID_PARAMS, f"there is no page {cursor!r}")
        begin = int(cursor or 0)
        offered = list((await self._offered(_identity(ctx))).values())
        page = [one.tool for one in offered[begin : begin + _PAGE]]
        more = str(begin + _PAGE) if len(offered) > begin + _PAGE else None
        return types.ListToolsResult(tools=page, next_cursor=more)

    async def _called(
        self, ctx: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        identity, arguments = _identity(ctx), params.arguments or {}
        offered = (await self._offered(identity)).get(params.name)
        if offered is None:  # or one that the caller may not use: they are not told the difference
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name!r}")
        if (wrong := misfit(arguments, offered.tool.input_schema)) is not None:
            return _failed(f"the arguments do not fit: {wrong}")
        status = 200
        try:
            if offered.agent is not None:
                return _answered(await self._asked(ctx, offered.agent, arguments, identity))
            assert offered.method is not None
            return _plain(await self._call(identity, *offered.method, arguments, self._call_s))
        except ServiceError as error:
            status = error.status
            return _failed(f"{error.remote_type}: {error.message}" if error.remote_type else error.message)
        except LLMAgentOSError as error:
            status = error.status
            return _failed(f"{error.message} ({error.hint})" if error.hint else error.message)
        finally:
            await self._audit(identity, params.name, status)

    async def _asked(
        self, ctx: ServerRequestContext[Any], agent: str, arguments: Mapping[str, Any], identity: Identity
    ) -> Run:
        session = arguments.get("session")
        if session is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", session):
            session = new_id()
        run = await self._door.ask(agent, str(arguments["request"]), identity, session=session)
        try:
            async with asyncio.timeout(self._call_s):
                steps = 0
                async for item in self._door.follow(run.id):
                    if isinstance(item, RunEvent) and not is_end(item):
                        steps += 1
                        await ctx.session.report_progress(steps, None, item.type)
        except TimeoutError:
            told = f"{agent} has not answered within {self._call_s:g} s: its run {run.id} goes on"
            raise DeadlineExceeded(told, hint=f"`llmctl trace {run.id}`") from None
        return await self._door.run(run.id, identity)

    async def _offered(self, identity: Identity) -> dict[str, _Offered]:
        """What `identity` may call, by name."""
        found: dict[str, _Offered] = {}
        if identity.may(Permission.RUNS_WRITE):
            for agent in sorted(await self._door.agents(), key=lambda one: one.spec.name):
                name = _name(f"ask_{agent.spec.name}")
                found.setdefault(name, _of_agent(name, agent))
        if identity.may(Permission.SERVICES_CALL):
            for service, method in sorted(self._methods(), key=lambda pair: (pair[0], pair[1].name)):
                name = _name(f"{service}__{method.name}")
                if not method.streams:
                    found.setdefault(name, _of_method(name, service, method))
        return found


def _name(name: str) -> str:
    """A name that every client can hand to a model: letters, digits, '_' and '-', at most 64."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]


def _of_agent(name: str, agent: Agent) -> _Offered:
    spec = agent.spec
    request = {**PARAMETERS["properties"]["request"], "maxLength": MAX_INPUT}
    schema = {**PARAMETERS, "properties": {"request": request, "session": _SESSION}}
    doc = f"Ask the agent {spec.name}. {spec.instructions[:2000]}".strip()
    return _Offered(types.Tool(name=name, description=doc, input_schema=schema), agent=spec.name)


def _of_method(name: str, service: str, method: MethodSpec) -> _Offered:
    hints = types.ToolAnnotations(idempotent_hint=method.idempotent, open_world_hint=False)
    schema = {"type": "object", **method.parameters}
    tool = types.Tool(name=name, description=method.doc, input_schema=schema, annotations=hints)
    return _Offered(tool, method=(service, method.name))


def _identity(ctx: ServerRequestContext[Any]) -> Identity:
    assert ctx.request is not None
    identity = ctx.request.scope[IDENTITY]
    assert isinstance(identity, Identity)
    return identity


def _answered(run: Run) -> types.CallToolResult:
    if run.answer is None:
        return _failed(run.error or (f"stopped by {run.killed_by}" if run.killed_by else f"the run {run.id} goes on"))
    told = {"answer": run.answer, "run": run.id, "sources": msgspec.to_builtins(run.sources)}
    return types.CallToolResult(content=[types.TextContent(text=run.answer)], structured_content=told)


def _plain(value: Any) -> types.CallToolResult:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    shown = value if isinstance(value, dict) else {"result": value}
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=shown)


def _failed(message: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=message)], is_error=True)

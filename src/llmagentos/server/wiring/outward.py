"""The agents and services for clients of other protocols: MCP, A2A, AG-UI."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from llmagentos.agents.door import Door
from llmagentos.api.http import HttpClient
from llmagentos.api.registry import MethodSpec
from llmagentos.api.tokens import ServiceToken
from llmagentos.core import log
from llmagentos.core.errors import Unavailable
from llmagentos.security.identity import Identity
from llmagentos.security.service_tokens import TTL_S, service_audience
from llmagentos.server.routes import a2a, agui, mcp
from llmagentos.server.routes.agents import found
from llmagentos.server.wiring.agents import Agents
from llmagentos.server.wiring.foundation import VERSION, Foundation, Parts
from llmagentos.server.wiring.registry import Services
from llmagentos.services.caller import ServiceCaller
from llmagentos.services.tokens import ServiceTokens

if TYPE_CHECKING:
    from llmagentos.agents.mcp.outward import Outward

_CALLERS = 64
"""Callers whose tokens for services are kept."""

_log = log.get(__name__)


def wire(base: Foundation, parts: Parts, agents: Agents, services: Services) -> None:
    """Agents through one door for all three; services over MCP."""
    door = Door(agents.ledger, agents.control, lambda name: found(agents.records, name), agents.records.all)
    callers = _Callers(base, services)

    def methods() -> Sequence[tuple[str, MethodSpec]]:
        known: dict[tuple[str, str], MethodSpec] = {}
        for instance in services.registry.directory.all():
            for service in instance.services:
                known.update({(service.name, method.name): method for method in service.methods})
        return [(service, method) for (service, _), method in known.items()]

    async def audit(identity: Identity, tool: str, status: int) -> None:
        _log.info("audit", identity=str(identity), action="POST /mcp", target=f"/mcp {tool}", status=status)
        await base.audit.add(str(identity), "POST /mcp", f"/mcp {tool}", status)

    speaking = _Speaking(lambda module: module.Outward(door, methods, callers.call, VERSION, audit))
    parts.background.append(speaking.serve)
    parts.close.append(callers.aclose)
    parts.endpoints += mcp.outward(speaking.speak, speaking.ready)
    parts.endpoints += a2a.endpoints(door, VERSION)
    parts.endpoints += agui.endpoints(door)


class _Speaking:
    """The MCP server, made when the first client comes: its package is an extra and takes a while to import."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self._wanted = asyncio.Event()
        self._made: asyncio.Future[Outward] | None = None

    async def serve(self) -> None:
        """While the server runs."""
        self._made = asyncio.get_running_loop().create_future()
        await self._wanted.wait()
        try:
            module = await asyncio.to_thread(import_module, "llmagentos.agents.mcp.outward")
        except ModuleNotFoundError as error:
            told = f"MCP needs a package that is not installed: {error.name}"
            self._made.set_exception(Unavailable(told, hint="pip install 'llmagentos[mcp]'"))
            return
        outward: Outward = self._make(module)
        async with outward.serving():
            self._made.set_result(outward)
            _log.info("speaks MCP")
            await asyncio.Event().wait()

    async def ready(self) -> None:
        """Made. Raises `Unavailable`."""
        self._wanted.set()
        if self._made is None:
            raise Unavailable("the server is still starting")
        await asyncio.shield(self._made)

    async def speak(self, scope: Scope, receive: Receive, send: Send, identity: Identity) -> None:
        """Answer one request."""
        assert self._made is not None
        await self._made.result().answer(scope, receive, send, identity)


class _Callers:
    """Calls to services in the name of whoever asks for them."""

    def __init__(self, base: Foundation, services: Services) -> None:
        self._base = base
        self._directory = services.registry.directory
        self._http = HttpClient()
        self._known: OrderedDict[str, ServiceCaller] = OrderedDict()

    async def call(
        self, identity: Identity, service: str, method: str, arguments: Mapping[str, Any], timeout: float
    ) -> Any:
        """What the method returns. Raises as `ServiceCaller.call`."""
        return await self._caller(identity).call(service, method, arguments, timeout=timeout)

    def _caller(self, identity: Identity) -> ServiceCaller:
        key = str(identity)
        if key not in self._known:

            async def token(service: str) -> ServiceToken:
                return ServiceToken(self._base.issuer.issue(identity, service_audience(service)), TTL_S)

            tokens = ServiceTokens(token, self._base.clock)
            self._known[key] = ServiceCaller(self._directory, tokens, self._http, self._base.clock)
        self._known.move_to_end(key)
        while len(self._known) > _CALLERS:
            self._known.popitem(last=False)
        return self._known[key]

    async def aclose(self) -> None:
        """End their connections."""
        await self._http.aclose()

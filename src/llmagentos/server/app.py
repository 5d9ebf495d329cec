"""Wires the server: the only place, beside the node agent's own main, that constructs implementations."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from llmagentos.core import discovery, log
from llmagentos.core.config import Config
from llmagentos.core.state import StateDirectory
from llmagentos.security.identity import Identity, Kind
from llmagentos.server.endpoint import Endpoint
from llmagentos.server.respond import Responder
from llmagentos.server.wiring import system
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.audit import AuditRecords
from llmagentos.storage.migrate import migrate

PRUNE_S = 3600.0

_log = log.get(__name__)


def create_app(config: Config, state: StateDirectory) -> Starlette:
    """The server's application; nothing is opened before its lifespan begins."""
    base = Foundation(config, state)
    parts = Parts()
    system.wire(base, parts)
    responder = Responder(base.authenticator, _audit(base.audit), max_body=config.server.limits.body_bytes)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await migrate(base.database, backups=state.root / "backups", keep=config.retention.backups)
        await _ensure_admin(base)
        for begin in parts.start:
            await begin()
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(main()) for main in parts.background]
                running.append(group.create_task(_prune(parts)))
                yield
                for task in running:
                    task.cancel()
        finally:
            base.hub.close()
            for close in reversed(parts.close):
                await close()
            await base.database.aclose()

    app = Starlette(routes=[*parts.pages, *_routes(parts.endpoints, responder)], lifespan=lifespan)
    app.router.default = _Dispatch({}, responder)
    app.router.redirect_slashes = False
    app.state.hub = base.hub
    app.state.endpoints = tuple(parts.endpoints)
    return app


async def _ensure_admin(base: Foundation) -> None:
    """The owner of the state directory is the administrator: give them a token when theirs is missing."""
    url = base.config.server.url
    ca = Path(base.config.server.tls.cert) if base.config.server.tls else None
    if base.state.credentials.exists():
        known = discovery.read(base.state.credentials)
        identity = await base.authenticator.bearer(known.token)
        if identity is not None and identity.kind is Kind.ADMIN:
            if (known.server, known.ca) != (url, ca):
                discovery.write(base.state.credentials, discovery.Credentials(url, known.token, ca))
            return
    secret, record = await base.token_records.create(Kind.ADMIN, "admin", by="state-directory")
    discovery.write(base.state.credentials, discovery.Credentials(url, secret, ca))
    _log.info("admin token made", id=record.id, file=str(base.state.credentials))


async def _prune(parts: Parts) -> None:
    while True:
        for prune in parts.prune:
            await prune()
        await asyncio.sleep(PRUNE_S)


def _audit(records: AuditRecords) -> Callable[[Identity, Endpoint, str, int], Awaitable[None]]:
    async def audit(identity: Identity, endpoint: Endpoint, path: str, status: int) -> None:
        action = f"{endpoint.method} {endpoint.path}"
        _log.info("audit", identity=str(identity), action=action, target=path, status=status)
        await records.add(str(identity), action, path, status)

    return audit


class _Dispatch:
    """All methods of one path."""

    def __init__(self, methods: dict[str, Endpoint], responder: Responder) -> None:
        self._methods = methods
        self._responder = responder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        method = "GET" if request.method == "HEAD" else request.method
        response = await self._responder.respond(request, self._methods.get(method), allowed=tuple(self._methods))
        await response(scope, receive, send)


def _routes(endpoints: Sequence[Endpoint], responder: Responder) -> list[Route]:
    """Starlette routes; fixed segments come before parameters, so that `/nodes/self` is not a node's name."""
    paths: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    ordered = sorted(paths, key=lambda path: [(bool(re.match(r"{", part)), part) for part in path.split("/")])
    return [Route(path, _Dispatch(paths[path], responder)) for path in ordered]

"""Wires the server: the only place, beside the node agent's own main, that constructs implementations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette

from llmagentos.core import discovery, log, plugins
from llmagentos.core.config import Config
from llmagentos.core.state import StateDirectory
from llmagentos.security.identity import Kind
from llmagentos.server import dispatch
from llmagentos.server.respond import Responder
from llmagentos.server.wiring import (
    agents,
    approvals,
    budgets,
    console,
    fleet,
    llm,
    outward,
    registry,
    system,
    telemetry,
    tools,
)
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.migrate import migrate

PRUNE_S = 3600.0

_log = log.get(__name__)


def create_app(config: Config, state: StateDirectory) -> Starlette:
    """The server's application; nothing is opened before its lifespan begins."""
    base = Foundation(config, state)
    parts = Parts()
    system.wire(base, parts)
    services = registry.wire(base, parts)
    gateway, calls, meter = llm.wire(base, parts)
    offered = tools.wire(base, parts)
    known = agents.wire(base, parts, gateway, meter, services.caller, offered.sources)
    limits = budgets.wire(base, parts, gateway, known)
    llm.expose(base, parts, gateway, calls, known.ledger, known.records)
    nodes = fleet.wire(base, parts)
    tools.connect(base, parts, offered, known, nodes)
    outward.wire(base, parts, known, services)
    measured = telemetry.wire(base, parts, nodes.nodes.names)
    console.wire(
        base,
        parts,
        services=services,
        gateway=gateway,
        calls=calls,
        agents=known,
        fleet=nodes,
        budgets=limits,
        telemetry=measured,
        approving=approvals.connect(base, parts, known.approvals, known.ledger, nodes.jobs.approvals),
    )
    for name, wire in plugins.load(config.plugins):
        wire(base, parts)
        _log.info("plugin wired", name=name)
    most = config.server.limits.body_bytes
    responder = Responder(base.authenticator, base.record_act, max_body=most)
    unknown = Responder(base.authenticator, base.record_act, max_body=most, errors=parts.unknown)

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

    app = Starlette(routes=[*parts.pages, *dispatch.routes(parts.endpoints, responder)], lifespan=lifespan)
    app.router.default = dispatch.Dispatch({}, unknown)
    app.router.redirect_slashes = False
    app.state.hub = base.hub
    app.state.node_ca = base.node_ca.path
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
            try:
                await prune()
            except Exception as error:  # the loop goes on: the other tables now, this one in the next round
                _log.error("not pruned", what=getattr(prune, "__qualname__", repr(prune)), error=str(error))
        await asyncio.sleep(PRUNE_S)

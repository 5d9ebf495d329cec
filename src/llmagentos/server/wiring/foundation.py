"""What every noun is wired from (`Foundation`) and what wiring adds up to (`Parts`)."""

from __future__ import annotations

import os
import platform
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from sqlalchemy import text
from starlette.routing import BaseRoute

from llmagentos.api.system import SystemInfo
from llmagentos.core import log
from llmagentos.core.clock import SystemClock
from llmagentos.core.config import Config
from llmagentos.core.events import Hub
from llmagentos.core.state import StateDirectory
from llmagentos.security.certificates import CertificateAuthority
from llmagentos.security.identity import Identity
from llmagentos.security.service_tokens import ServiceTokenIssuer
from llmagentos.server.auth import Authenticator
from llmagentos.server.endpoint import Endpoint
from llmagentos.server.respond import Errors
from llmagentos.storage.audit import AuditRecords
from llmagentos.storage.database import Database
from llmagentos.storage.tokens import TokenRecords

VERSION = version("llmagentos")

_log = log.get(__name__)


@dataclass
class Parts:
    """What the wiring collects: routes, what to do at start, what runs beside, what to close at the end."""

    endpoints: list[Endpoint] = field(default_factory=list)
    pages: list[BaseRoute] = field(default_factory=list)
    unknown: Errors | None = None  # how to answer for a path that nothing has
    start: list[Callable[[], Awaitable[object]]] = field(default_factory=list)
    background: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    prune: list[Callable[[], Awaitable[object]]] = field(default_factory=list)
    close: list[Callable[[], Awaitable[object]]] = field(default_factory=list)


class Foundation:
    """What every noun is wired from."""

    def __init__(self, config: Config, state: StateDirectory) -> None:
        self.config = config
        self.state = state
        self.clock = SystemClock()
        self.hub = Hub()
        self.database = Database(config.database_url())
        self.token_records = TokenRecords(self.database, self.clock)
        self.authenticator = Authenticator(self.token_records, self.clock, tls=config.server.tls is not None)
        self.node_ca = CertificateAuthority(state.keys)
        self.issuer = ServiceTokenIssuer(state.keys / "service-token.pem")
        self.audit = AuditRecords(self.database, self.clock)
        self.started = self.clock.time()

    def info(self, identity: Identity) -> SystemInfo:
        """The server's facts, told to `identity`."""
        return SystemInfo(
            VERSION,
            platform.python_version(),
            self.config.server.url,
            self.database.engine.dialect.name,
            self.clock.time(),
            self.started,
            os.getpid(),
            str(identity),
        )

    async def record_act(self, identity: Identity, endpoint: Endpoint, path: str, status: int) -> None:
        """Remember a change that a person made, in the audit log and in the server's."""
        action = f"{endpoint.method} {endpoint.path}"
        _log.info("audit", identity=str(identity), action=action, target=path, status=status)
        await self.audit.add(str(identity), action, path, status)

    async def ping(self) -> None:
        """Reach the database."""
        async with self.database.read() as connection:
            await connection.execute(text("SELECT 1"))

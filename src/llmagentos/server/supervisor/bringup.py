"""Bringing the system up: server and engines at once, then what needs the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from llmagentos.api.client import ApiClient
from llmagentos.core.child import Child, ChildFailed, ChildSpec
from llmagentos.core.config import Loaded
from llmagentos.core.discovery import Credentials, read
from llmagentos.core.errors import Unavailable
from llmagentos.core.i18n import tr
from llmagentos.core.state import StateDirectory
from llmagentos.server.supervisor import parts
from llmagentos.server.supervisor.report import Report

SERVER_READY_S = 60.0
_POLL_S = 0.05


class BringUp:
    """One start of the system. `launch` starts a supervised child."""

    def __init__(
        self, loaded: Loaded, state: StateDirectory, report: Report, launch: Callable[[ChildSpec], Child]
    ) -> None:
        self._loaded = loaded
        self._config = loaded.config
        self._state = state
        self._report = report
        self._launch = launch
        self._env = parts.environment(loaded, state)

    async def run(self, on_ready: Callable[[str | None], None]) -> None:
        """Start everything; `on_ready` gets the admin token when this start made it. Raises `ChildFailed`."""
        first = not self._state.credentials.exists()
        self._report.progress({"server": tr("starting")})
        server = self._launch(parts.server(self._state, self._env))
        credentials = await self._answering(server)
        self._report.progress({"server": tr("ready")})
        self._report.settled()
        on_ready(credentials.token if first else None)

    async def _answering(self, server: Child) -> Credentials:
        deadline = time.monotonic() + SERVER_READY_S
        while time.monotonic() < deadline:
            if server.status.restarts:
                raise ChildFailed(
                    f"the server {server.status.last_exit}; the end of {server.spec.log}:\n{server.tail()}"
                )
            if (credentials := await self._probe()) is not None:
                return credentials
            await asyncio.sleep(_POLL_S)
        raise ChildFailed(f"the server did not answer within {SERVER_READY_S:.0f} s; see {server.spec.log}")

    async def _probe(self) -> Credentials | None:
        if not self._state.credentials.exists():
            return None
        credentials = read(self._state.credentials)
        async with ApiClient(credentials.server, credentials.token, tls=credentials.tls(), timeout=5) as client:
            try:
                await client.download("/health")
            except Unavailable:
                return None
        return credentials

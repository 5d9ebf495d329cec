"""Bringing the system up: server and engines at once, then what needs the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from llmagentos.agents.definition import read_agent
from llmagentos.api import agents, nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.console import LoginLink
from llmagentos.api.tokens import NewToken
from llmagentos.core.child import Child, ChildFailed, ChildSpec
from llmagentos.core.config import Loaded
from llmagentos.core.discovery import Credentials, read
from llmagentos.core.errors import LLMAgentOSError, NotFound, Unavailable
from llmagentos.core.files import write_whole
from llmagentos.core.i18n import tr
from llmagentos.core.state import StateDirectory
from llmagentos.fleet.node.state import NodeDirectory
from llmagentos.server.supervisor import parts, units
from llmagentos.server.supervisor.engines import Engines
from llmagentos.server.supervisor.report import Report

SERVER_READY_S = 60.0
_POLL_S = 0.05
_SHOW_S = 0.2


@dataclass(frozen=True, slots=True)
class Answering:
    """The server can be used."""

    first_token: str | None  # the admin token when this start made it
    login: str  # a link that logs in to the console, once


class BringUp:
    """One start of the system. `launch` starts a supervised child."""

    def __init__(
        self,
        loaded: Loaded,
        state: StateDirectory,
        report: Report,
        launch: Callable[[ChildSpec], Child],
        engines: Engines,
    ) -> None:
        self._loaded = loaded
        self._config = loaded.config
        self._state = state
        self._report = report
        self._launch = launch
        self._engines = engines
        self._env = parts.environment(loaded, state)

    async def run(self, on_ready: Callable[[Answering], None]) -> None:
        """Start everything; `on_ready` is called once the server answers, while models still load.

        Raises `ChildFailed` when the server does not come up.
        """
        first = not self._state.credentials.exists()
        self._report.progress({"server": tr("starting")})
        server = self._launch(parts.server(self._state, self._env))
        models = self._engines.start()
        credentials = await self._answering(server)
        self._report.settled()
        async with ApiClient(credentials.server, credentials.token, tls=credentials.tls()) as client:
            if self._config.node.enabled:
                await self._forget_node(client)
                await self._start_node(client, credentials)
            link = await client.post("/api/v1/login-links", {}, LoginLink)
            on_ready(Answering(credentials.token if first else None, client.server + link.path))
            await self._apply_agents(client)
            await self._await_models(models)

    async def _forget_node(self, client: ApiClient) -> None:
        """Have this machine join again when the server does not know it: its database is another one than before."""
        directory = NodeDirectory(self._state.node)
        if (known := directory.read_identity()) is None:
            return
        try:
            await nodes.show(client, known.name)
        except NotFound:
            directory.identity.unlink()
            self._report.say(tr("the database does not know the node {name}: it joins again", name=known.name))

    async def _start_node(self, client: ApiClient, credentials: Credentials) -> None:
        for warning in units.write(self._state.node, self._config.modules):
            self._report.say(tr("warning: {warning}", warning=warning))
        if not (self._state.node / "identity.json").exists():
            wanted = {"name": "local-node", "kind": "join", "modules": ["*"]}  # it is the operator's own machine
            made = await client.post("/api/v1/tokens", wanted, NewToken)
            write_whole(parts.join_token(self._state), made.token.encode() + b"\n")
        name = self._config.node.name
        self._launch(parts.node(self._state, self._env, server=credentials.server, ca=credentials.ca, name=name))

    async def _apply_agents(self, client: ApiClient) -> None:
        for path in self._config.agents:
            try:
                done = await agents.apply(client, read_agent(path))
            except LLMAgentOSError as error:  # one wrong file must not keep the system from running
                self._report.say(tr("error: agents: {error}", error=error.message))
                continue
            if done.change != "unchanged":
                self._report.say(tr("agent {name} from {path}", name=done.agent.name, path=path))
            for warning in done.warnings:
                self._report.say(tr("warning: {warning}", warning=f"{done.agent.name}: {warning}"))

    async def _await_models(self, models: list[Child]) -> None:
        """Show how far each model is until all can work; a model that fails says so by itself."""
        begun = time.monotonic()
        while waiting := [child for child in models if not (child.is_ready or child.status.state == "stopped")]:
            how = {child.spec.name: tr("loading") if child in waiting else tr("ready") for child in models}
            self._report.progress(how, seconds=time.monotonic() - begun)
            await asyncio.sleep(_SHOW_S)
        self._report.progress({child.spec.name: tr("ready") for child in models})
        self._report.settled()

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

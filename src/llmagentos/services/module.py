"""`Module`: one process that hosts services and agents."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from llmagentos.api.client import ApiClient
from llmagentos.api.http import Target
from llmagentos.api.registry import Registered, Registration, ServiceSpec
from llmagentos.core import log, metrics, tracing
from llmagentos.core.addresses import is_loopback
from llmagentos.core.errors import ConfigError, LLMAgentOSError
from llmagentos.security.service_tokens import ServiceTokenVerifier
from llmagentos.services import runtime
from llmagentos.services.caller import ServiceCaller
from llmagentos.services.link import ServerLink
from llmagentos.services.registrar import Registrar
from llmagentos.services.rpc import openapi
from llmagentos.services.rpc.dispatch import Dispatcher
from llmagentos.services.rpc.http import Connections
from llmagentos.services.rpc.limits import Limits
from llmagentos.services.runtime import Runtime
from llmagentos.services.service import Service, methods_of, spec_of

DRAIN_S = 5.0
"""Calls that run when the module is told to stop have this long to end."""
_HEARD_S = 0.3
"""When nobody has called for so long after draining began, callers have heard of it."""
_UNHEARD_S = 2.0
"""Whoever calls on for so long has not heard, or has nobody else to call."""
_AGAIN_S = 0.5
"""A second signal after this long stops without draining."""

_log = log.get(__name__)
Background = Callable[[], Coroutine[Any, Any, None]]


class Attachable(Protocol):
    """An agent, as far as a module has to know it."""

    def attach(self, module: Module) -> None:
        """Add to the module what the agent needs."""
        ...


class Module:
    """A named process with services and agents. `start()` serves until SIGTERM or SIGINT.

        module = Module("hello-service")
        module.register_service(HelloService)
        module.start()

    It listens on a free port of 127.0.0.1 unless told otherwise. An address beyond this machine needs
    `certificate` and `key` (PEM files); a CA of your own is named to callers by LLMAGENTOS_CA and to the server
    by `server.trust`. LLMAGENTOS_ADVERTISE names the origin to tell callers when it
    differs (port mapping, a proxy); LLMAGENTOS_OTLP where spans go; LLMAGENTOS_LOG_LEVEL what is logged.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str = "0",
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: str | None = None,
        key: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.agents: list[str] = []
        """Names of the agents that this module executes; told to the registry."""
        self._bind = (host, port)
        self._tls = _tls(host, certificate, key)
        self._limits = limits or Limits()
        self._specs: list[ServiceSpec] = []
        self._backgrounds: list[Background] = []
        self._runtime: Runtime | None = None
        self._stop = asyncio.Event()
        self._address = ""
        pages = {"/health": self._health, "/metrics": self._metrics, "/openapi.json": self._openapi}
        self._dispatcher = Dispatcher(name, pages, self._limits)

    def register_service(self, service: type[Service] | Service, name: str | None = None) -> None:
        """Offer a service: an object, or a class that is made without arguments.

        Without a `name` it is called as the module is; so a module's second service needs one.
        Raises `ConfigError` for a name that is taken or a method that cannot be offered.
        """
        name = name or self.name
        if any(known.name == name for known in self._specs):
            raise ConfigError(
                f"the module {self.name!r} has a service {name!r} already",
                hint='register_service(Other, name="...") gives another its own name',
            )
        implementation = service() if isinstance(service, type) else service
        methods = methods_of(name, implementation)
        self._specs.append(_checked(spec_of(name, implementation, methods), ServiceSpec))
        self._dispatcher.add(name, methods)

    def register_agent(self, agent: Attachable) -> None:
        """Execute an agent here: `agent.attach(module)` adds its name and background work."""
        agent.attach(self)

    def add_background(self, work: Background) -> None:
        """Run `work()` beside the services, from registration to the end; it may use `api` and `caller`."""
        self._backgrounds.append(work)

    @property
    def api(self) -> ApiClient:
        """The client of the server's API, while the module runs."""
        return self._running.link.api

    @property
    def caller(self) -> ServiceCaller:
        """Calls other services, while the module runs."""
        return self._running.caller

    @property
    def _running(self) -> Runtime:
        if self._runtime is None:
            raise ConfigError(f"the module {self.name!r} does not run yet", hint="use this inside background work")
        return self._runtime

    def start(self) -> None:
        """Serve until SIGTERM or SIGINT; then drain, deregister and return.

        Exits the process with code 1 or 2 and a message when it cannot begin.
        """
        log.configure(process=f"module:{self.name}", level=os.environ.get("LLMAGENTOS_LOG_LEVEL", "info"))
        try:
            self._run()
            code = 0
        except (LLMAgentOSError, BaseExceptionGroup) as error:  # a group is of background work
            if (known := _known(error)) is None:
                raise
            sys.stderr.write(f"error: {known.message}\n" + (f"hint: {known.hint}\n" if known.hint else ""))
            code = known.exit_code
        finally:
            tracing.shutdown()
        if code:
            raise SystemExit(code)

    def _run(self) -> None:
        import uvloop

        if endpoint := os.environ.get("LLMAGENTOS_OTLP"):
            tracing.configure(process=self.name, endpoint=endpoint)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._until_signal())

    async def _until_signal(self) -> None:
        loop = asyncio.get_running_loop()
        serving = loop.create_task(self.serve())
        told: float | None = None

        def stop() -> None:
            nonlocal told
            if told is None:
                told = loop.time()
                self.stop()
            elif loop.time() - told > _AGAIN_S:  # `timeout` and some shells send one signal twice at once
                serving.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        with suppress(asyncio.CancelledError):
            await serving

    def stop(self) -> None:
        """Have `serve` drain and return."""
        self._stop.set()

    async def serve(self) -> None:
        """Serve on the running event loop until `stop()`. Raises `LLMAgentOSError` when it cannot begin."""
        self._stop = asyncio.Event()
        _checked(self._registration(), Registration)
        self._runtime = runtime.here()
        link = ServerLink()
        connections = Connections(
            self._dispatcher, self._limits, on_change=lambda count: metrics.SERVICE_CONNECTIONS.set(count)
        )
        listener = await self._listen(connections)
        registrar = Registrar(link, self._registration, self._registered)
        try:
            await self._serve(connections, registrar)
        finally:
            listener.close()
            await registrar.leave()
            await connections.finish(0)
            self._dispatcher.close()
            await link.aclose()
            await self._runtime.aclose()
            _log.info("stopped")

    async def _serve(self, connections: Connections, registrar: Registrar) -> None:
        if not await _either(registrar.first(), self._stop.wait()):
            return
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(connections.watch())
            work = [group.create_task(registrar.keep()), *(group.create_task(each()) for each in self._backgrounds)]
            await self._stop.wait()
            _log.info("draining")
            for task in work:
                task.cancel()
            await registrar.drain()
            await connections.quiet(_HEARD_S, within=_UNHEARD_S)
            await connections.finish(DRAIN_S)
            watch.cancel()

    async def _listen(self, connections: Connections) -> asyncio.Server:
        host, port = self._bind
        try:
            server = await asyncio.get_running_loop().create_server(
                connections, host, port, ssl=self._tls, backlog=1024, reuse_address=True
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror or error}", hint="port 0 takes a free one"
            ) from None
        bound = server.sockets[0].getsockname()[1]
        scheme = "https" if self._tls else "http"
        shown = f"[{host}]" if ":" in host else host
        self._address = os.environ.get("LLMAGENTOS_ADVERTISE") or f"{scheme}://{shown}:{bound}"
        _advertisable(self._address)
        return server

    def _registration(self) -> Registration:
        return Registration(self.name, self.version, self._address, self._specs, self.agents)

    def _registered(self, answer: Registered) -> None:
        self._dispatcher.verifier = ServiceTokenVerifier({"keys": answer.jwks.keys})

    def _health(self) -> tuple[str, bytes]:
        return "application/json", b'{"status":"ok"}'

    def _metrics(self) -> tuple[str, bytes]:
        return metrics.CONTENT_TYPE, metrics.render()

    def _openapi(self) -> tuple[str, bytes]:
        return "application/json", msgspec.json.encode(openapi.document(self.name, self.version, self._specs))


def _known(error: BaseException) -> LLMAgentOSError | None:
    if isinstance(error, BaseExceptionGroup):
        return next((known for inner in error.exceptions if (known := _known(inner)) is not None), None)
    return error if isinstance(error, LLMAgentOSError) else None


async def _either(wanted: Coroutine[Any, Any, None], other: Coroutine[Any, Any, Any]) -> bool:
    """Whether `wanted` ended before `other` did; the one that did not is cancelled. Raises what `wanted` raises."""
    tasks = [asyncio.ensure_future(wanted), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
            return True
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _checked(value: Any, kind: Any) -> Any:
    """`value` again when the server will take it. Raises `ConfigError` for names that do not fit."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value), type=kind)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{kind.__name__.lower()}: {error}", hint="names are letters, digits, `.`, `_` and `-`, at most 63"
        ) from None


def _tls(host: str, certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        if not is_loopback(host):
            raise ConfigError(
                f"a module on {host!r} would send tokens in clear text over the network",
                hint="Module(..., certificate=FILE, key=FILE), or 127.0.0.1 behind a proxy and LLMAGENTOS_ADVERTISE",
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the module's certificate cannot be used: {error}") from None
    return context


def _advertisable(address: str) -> None:
    try:
        Target.of(address)
    except ValueError as error:
        raise ConfigError(f"LLMAGENTOS_ADVERTISE: {error}", hint="an origin, e.g. https://host:8443") from None
    if urlsplit(address).path not in ("", "/"):
        raise ConfigError(f"LLMAGENTOS_ADVERTISE: {address!r} has a path; an origin is expected")

"""The server process: configuration in, uvicorn on the configured address, stop on SIGTERM."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.lifespan.on import LifespanOn

from llmagentos.core import log, tracing, trust
from llmagentos.core.config import Config, load
from llmagentos.core.config.schema import Tls
from llmagentos.core.errors import ConfigError, LLMAgentOSError
from llmagentos.core.state import StateDirectory
from llmagentos.security import redaction
from llmagentos.server.app import create_app
from llmagentos.server.peers import Protocol

GRACE_S = 3
OTHER_FILES = 256
"""Open files beside the connections: the database, logs, bundles, what runs."""
_log = log.get(__name__)


class Server(uvicorn.Server):
    """Ends the event streams before it waits for connections: they would never end by themselves.

    It ends by itself when the work beside the requests has failed: it would go on answering, but nothing would happen.
    """

    def __init__(self, app: Starlette, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop when told, at once when told twice; unlike uvicorn's own, the process then ends with exit code 0."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to stop."""
        self.should_exit = self.should_exit or self.failed
        return await super().on_tick(counter)

    @property
    def failed(self) -> bool:
        """Whether the work beside the requests ended by an error."""
        return isinstance(self.lifespan, LifespanOn) and self.lifespan.error_occurred

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.hub.close()
        await super().shutdown(sockets)


def uvicorn_config(app: Starlette, config: Config, node_ca: Path) -> uvicorn.Config:
    """How uvicorn serves `app`: TLS when configured, bounded connections, a short grace at the end.

    Over TLS nodes present certificates of the CA `node_ca`; nobody else is asked for one that they would have.
    """
    tls = config.server.tls
    return uvicorn.Config(
        _plain(app),
        host=config.server.host,
        port=config.server.port,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=config.server.limits.connections,
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
        ssl_ca_certs=str(node_ca) if tls else None,
        ssl_cert_reqs=ssl.CERT_OPTIONAL if tls else ssl.CERT_NONE,
    )


def _plain(app: ASGIApp) -> ASGIApp:
    """`app`; when it cannot start for a reason that we know, that is told, and not where in the code it was found."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and isinstance(error, LLMAgentOSError):
                message = {**message, "message": _told(error)}
            await send(message)

        await app(scope, receive, told)

    return application


def _told(error: LLMAgentOSError) -> str:
    return f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else "")


def require_usable(tls: Tls) -> None:
    """Raises `ConfigError` when no connection could be made with this certificate and key."""
    for key, path in (("cert", tls.cert), ("key", tls.key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"server.tls.{key}: {path}: cannot be read: {error.strerror}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key, password="")
    except ssl.SSLError as error:
        raise ConfigError(
            f"server.tls: {tls.cert} and {tls.key} cannot be used: {error.reason or error}",
            hint="PEM files; the key belongs to the certificate and is not encrypted",
        ) from None


def raise_open_files(connections: int) -> None:
    """Let this process open as many files as it may: every connection is one. Warns when that is too few."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != most:
        with suppress(ValueError, OSError):  # where the kernel allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed != resource.RLIM_INFINITY and allowed < connections + OTHER_FILES:
        _log.warning("server.limits.connections is more than this process may open", files=allowed, wanted=connections)


def main() -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    try:
        config = load().config
        kinds = config.guardrails.logs
        log.configure(
            process="server", level=config.log.level, hide=partial(redaction.hide, kinds=kinds) if kinds else None
        )
        if config.telemetry.otlp:
            tracing.configure(process="server", endpoint=config.telemetry.otlp)
        if config.server.trust is not None:
            trust.also(Path(config.server.trust))
        if config.server.tls is not None:
            require_usable(config.server.tls)
        raise_open_files(config.server.limits.connections)
        state = StateDirectory(config.state_path)
        state.prepare()
        app = create_app(config, state)
        server = Server(app, uvicorn_config(app, config, app.state.node_ca))
        uvicorn_loop = server.config.get_loop_factory()
        with asyncio.Runner(loop_factory=uvicorn_loop) as runner:
            runner.run(server.serve())
    except LLMAgentOSError as error:
        sys.stderr.write(_told(error) + "\n")
        return error.exit_code
    finally:
        tracing.shutdown()
    return 0 if server.started and not server.failed else 1

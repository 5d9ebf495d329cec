"""uvicorn's connections, with what it does not tell: who is at the other end, and that there is no room for more.

Which TLS client certificate a request came with: uvicorn verifies it and forgets it, so it is kept here;
`scope["extensions"]["tls"]` is that of ASGI's TLS extension, with the certificate's thumbprint in place of its PEM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from llmagentos.api import problem
from llmagentos.core.errors import Unavailable
from llmagentos.security.certificates import thumbprint


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which also tells the client certificate, and when to come again where it has no room."""

    _peer: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look at the certificate once: it is the connection's."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        self._peer = thumbprint(der) if der else None

    def on_message_begin(self) -> None:
        """Put it beside each request."""
        super().on_message_begin()
        if self._peer is not None:
            self.scope["extensions"] = {"tls": {"client_cert_thumbprint": self._peer}}

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        super()._start_asgi_task(cycle, overloaded if app is service_unavailable else app)


async def overloaded(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """The answer on a connection over `server.limits.connections`."""
    body = problem.encode(
        Unavailable("the server has as many connections as it may have", hint="server.limits.connections")
    )
    headers = [
        (b"content-type", problem.CONTENT_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"5"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def peer(scope: Mapping[str, Any]) -> str | None:
    """The thumbprint of the client certificate; None without one."""
    found = (scope.get("extensions") or {}).get("tls", {}).get("client_cert_thumbprint")
    return found if isinstance(found, str) else None

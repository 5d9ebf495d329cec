"""Which TLS client certificate a request came with: uvicorn verifies it and forgets it, so it is kept here.

`scope["extensions"]["tls"]` is that of ASGI's TLS extension, with the certificate's thumbprint in place of its PEM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmagentos.security.certificates import thumbprint


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which also tells the client certificate."""

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


def peer(scope: Mapping[str, Any]) -> str | None:
    """The thumbprint of the client certificate; None without one."""
    found = (scope.get("extensions") or {}).get("tls", {}).get("client_cert_thumbprint")
    return found if isinstance(found, str) else None

"""The server itself: health, metrics, keys, OpenAPI, tokens."""

from __future__ import annotations

from typing import Any

from llmagentos.server import openapi
from llmagentos.server.routes import system, tokens
from llmagentos.server.wiring.foundation import VERSION, Foundation, Parts


def wire(base: Foundation, parts: Parts) -> None:
    document: dict[str, Any] = {}

    def describe() -> dict[str, Any]:
        if not document:
            document.update(openapi.document(parts.endpoints, VERSION))
        return document

    parts.endpoints += system.endpoints(ping=base.ping, info=base.info, document=describe)
    parts.endpoints += tokens.endpoints(base.token_records, base.authenticator, base.issuer)
    parts.prune += [base.token_records.prune, base.audit.prune]

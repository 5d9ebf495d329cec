"""The registry, and the in-server caller of services."""

from __future__ import annotations

from dataclasses import dataclass

from llmagentos.api.http import HttpClient
from llmagentos.api.tokens import ServiceToken
from llmagentos.security.identity import Identity, Kind
from llmagentos.security.service_tokens import TTL_S, service_audience
from llmagentos.server.routes import registry as routes
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.services.caller import ServiceCaller
from llmagentos.services.registry.embedded import EmbeddedRegistry
from llmagentos.services.tokens import ServiceTokens
from llmagentos.storage.instances import InstanceRecords

ITSELF = Identity(Kind.MODULE, "llmagentos-server")
"""Whom instances see when an agent in the server calls them."""


@dataclass(frozen=True, slots=True)
class Services:
    """What others need of this noun."""

    registry: EmbeddedRegistry
    caller: ServiceCaller


def wire(base: Foundation, parts: Parts) -> Services:
    """The registry's routes, its restoring and expiry, and a caller that reads it without a detour."""
    registry = EmbeddedRegistry(InstanceRecords(base.database), base.hub.publish, base.clock)

    async def token(service: str) -> ServiceToken:
        return ServiceToken(base.issuer.issue(ITSELF, service_audience(service)), TTL_S)

    caller = ServiceCaller(registry.directory, ServiceTokens(token, base.clock), HttpClient(), base.clock)
    parts.endpoints += routes.endpoints(registry, base.hub, base.issuer.jwks()["keys"])
    parts.start.append(registry.restore)
    parts.background.append(registry.expire)
    parts.close.append(caller.aclose)
    return Services(registry, caller)

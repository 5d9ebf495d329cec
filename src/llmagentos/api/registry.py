"""The registry on the wire: who offers which methods at which address, and the stream of changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient
from llmagentos.api.tokens import Keys, ServiceToken, ServiceTokenRequest
from llmagentos.api.tokens import Name as Name

INSTANCES = "/api/v1/registry/instances"
WATCH = "/api/v1/registry/watch"

MethodName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class MethodSpec(msgspec.Struct, frozen=True):
    """One method of a service. `parameters` and `returns` are JSON Schemas (2020-12)."""

    name: MethodName
    doc: str = ""
    idempotent: bool = False
    """Carrying it out twice does the same as once, so a caller may repeat it elsewhere."""
    streams: bool = False
    """It answers with any number of items; `returns` is the schema of one."""
    parameters: dict[str, Any] = {}
    returns: dict[str, Any] = {}


class ServiceSpec(msgspec.Struct, frozen=True):
    """A service and what it can be asked."""

    name: Name
    doc: str = ""
    methods: Annotated[list[MethodSpec], Meta(max_length=500)] = []


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An instance introduces itself. `address` is an origin that callers can reach."""

    module: Name
    version: Annotated[str, Meta(max_length=100)]
    address: Annotated[str, Meta(max_length=500)]
    services: Annotated[list[ServiceSpec], Meta(max_length=100)] = []
    agents: Annotated[list[Name], Meta(max_length=500)] = []


class Registered(msgspec.Struct, frozen=True):
    """The instance's id, the seconds it stays registered unrenewed, and the keys that verify its callers."""

    instance: str
    lease_s: float
    jwks: Keys


class Instance(msgspec.Struct, frozen=True):
    """A registered instance. `registered` is seconds since the epoch, UTC."""

    id: str
    module: str
    version: str
    address: str
    services: list[ServiceSpec]
    agents: list[str]
    state: Literal["up", "draining"]
    registered: float


class Snapshot(msgspec.Struct, frozen=True):
    """All instances at one moment: the first event of the stream of changes."""

    instances: list[Instance]


class Change(msgspec.Struct, frozen=True):
    """One instance came up, began to drain, or is gone."""

    kind: Literal["up", "draining", "down"]
    instance: Instance


async def register(client: ApiClient, registration: Registration) -> Registered:
    """Become an instance. Raises `Forbidden` for a foreign module's name, `Conflict` for a foreign service's."""
    return await client.post(INSTANCES, registration, Registered)


async def renew(client: ApiClient, instance: str, *, timeout: float) -> None:
    """Stay registered. Raises `NotFound` when the server no longer knows the instance."""
    await client.put(f"{INSTANCES}/{instance}/lease", {}, type(None), timeout=timeout)


async def drain(client: ApiClient, instance: str, *, timeout: float) -> None:
    """Ask callers to go elsewhere."""
    await client.post(f"{INSTANCES}/{instance}/drain", {}, type(None), timeout=timeout)


async def deregister(client: ApiClient, instance: str, *, timeout: float) -> None:
    """Leave."""
    await client.delete(f"{INSTANCES}/{instance}", timeout=timeout)


async def instances(client: ApiClient, service: str | None = None) -> list[Instance]:
    """The registered instances, of all services or one."""
    return await client.get(INSTANCES, list[Instance], query={"service": service})


async def service_token(client: ApiClient, *, service: str | None = None, module: str | None = None) -> ServiceToken:
    """A short-lived token for one service, or for one module's own pages."""
    request = ServiceTokenRequest(service=service, module=module)
    return await client.post("/api/v1/service-tokens", request, ServiceToken)


@asynccontextmanager
async def watch(client: ApiClient) -> AsyncIterator[AsyncIterator[Snapshot | Change]]:
    """Follow the registry: a `Snapshot` first (and again whenever changes were missed), then every `Change`."""
    async with client.events(WATCH) as events:

        async def changes() -> AsyncIterator[Snapshot | Change]:
            async for event in events:
                if event.event == "snapshot":
                    yield event.decode(Snapshot)
                elif event.event in ("up", "draining", "down"):
                    yield event.decode(Change)

        yield changes()

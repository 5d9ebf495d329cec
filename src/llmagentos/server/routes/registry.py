"""Instances register, renew and leave; clients list them and follow the changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response

from llmagentos.api.registry import INSTANCES, WATCH, Change, Instance, Registered, Registration, Snapshot
from llmagentos.api.tokens import Keys
from llmagentos.core.events import LAGGED, Hub
from llmagentos.security.identity import Permission
from llmagentos.server import sse
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.services.registry.embedded import TOPIC, EmbeddedRegistry


def endpoints(registry: EmbeddedRegistry, hub: Hub, keys: list[dict[str, Any]]) -> list[Endpoint]:
    """`registry` holds the instances, `hub` says what changes, `keys` verify the callers of instances."""

    async def register(call: Call) -> Registered:
        instance = await registry.register(call.identity, call.body)
        return Registered(instance.id, registry.lease_s, Keys(keys))

    async def renew(call: Call) -> None:
        registry.renew(call.identity, call.path["id"])

    async def drain(call: Call) -> None:
        await registry.drain(call.identity, call.path["id"])

    async def deregister(call: Call) -> None:
        await registry.deregister(call.identity, call.path["id"])

    async def listing(call: Call) -> list[Instance]:
        service = call.query.get("service")
        return [i for i in registry.directory.all() if service is None or any(s.name == service for s in i.services)]

    async def watch(_: Call) -> Response:
        return sse.stream(_changes(registry, hub))

    read, write = Permission.REGISTRY_READ, Permission.REGISTRY_WRITE
    one = INSTANCES + "/{id}"
    return [
        Endpoint(
            "POST", INSTANCES, write, register, body=Registration, returns=Registered, summary="Register an instance"
        ),
        Endpoint("PUT", one + "/lease", write, renew, summary="Renew an instance's lease"),
        Endpoint("POST", one + "/drain", write, drain, summary="Ask callers of an instance to go elsewhere"),
        Endpoint("DELETE", one, write, deregister, summary="Take an instance out"),
        Endpoint("GET", INSTANCES, read, listing, returns=list[Instance], summary="List instances (?service=)"),
        Endpoint("GET", WATCH, read, watch, summary="Follow the instances: a snapshot, then changes", streams=True),
    ]


async def _changes(registry: EmbeddedRegistry, hub: Hub) -> AsyncIterator[sse.Event]:
    with hub.subscribe(TOPIC) as changes:
        yield sse.Event("snapshot", Snapshot(registry.directory.all()))
        async for change in changes:
            if change is LAGGED:
                yield sse.Event("snapshot", Snapshot(registry.directory.all()))
            elif isinstance(change, Change):
                yield sse.Event(change.kind, change)

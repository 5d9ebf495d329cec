"""Nodes: seen and removed by people; joining, facts, heartbeats and module tokens by the nodes themselves."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from llmagentos.api.nodes import Beat, Facts, Heartbeat, Join, Joined, ModuleToken, Node, NodeSummary
from llmagentos.core.errors import InvalidInput
from llmagentos.fleet.nodes import Nodes
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.jobs import node_name

_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def endpoints(
    nodes: Nodes,
    *,
    queue_lengths: Callable[[], Awaitable[dict[str, int]]],
    drop_queue: Callable[[str], Awaitable[None]],
) -> list[Endpoint]:
    """`queue_lengths` by node; `drop_queue` ends what waits for a node that is removed."""
    return [*_people(nodes, queue_lengths, drop_queue), *_selves(nodes)]


def _people(
    nodes: Nodes,
    queue_lengths: Callable[[], Awaitable[dict[str, int]]],
    drop_queue: Callable[[str], Awaitable[None]],
) -> list[Endpoint]:
    async def listing(_: Call) -> list[NodeSummary]:
        return await nodes.listing(await queue_lengths())

    async def show(call: Call) -> Node:
        return await nodes.show(call.path["name"], await queue_lengths())

    async def remove(call: Call) -> None:
        await nodes.remove(call.path["name"])
        await drop_queue(call.path["name"])

    read, write = Permission.NODES_READ, Permission.NODES_WRITE
    return [
        Endpoint("GET", "/api/v1/nodes", read, listing, returns=list[NodeSummary], summary="List nodes"),
        Endpoint("GET", "/api/v1/nodes/{name}", read, show, returns=Node, summary="One node"),
        Endpoint("DELETE", "/api/v1/nodes/{name}", write, remove, summary="Remove a node", audited=True),
    ]


def _selves(nodes: Nodes) -> list[Endpoint]:
    async def join(call: Call) -> Joined:
        return await nodes.join(call.identity, call.body)

    async def facts(call: Call) -> None:
        await nodes.set_facts(node_name(call.identity), call.body)

    async def heartbeat(call: Call) -> Beat:
        return await nodes.beat(node_name(call.identity), call.body)

    async def module_token(call: Call) -> ModuleToken:
        module = call.path["name"]
        if not _MODULE.fullmatch(module):
            raise InvalidInput(f"{module[:80]!r} is not a module's name", hint="letters, digits, dot, dash, underscore")
        return ModuleToken(await nodes.module_token(node_name(call.identity), module))

    work = Permission.NODE_WORK
    return [
        Endpoint(
            "POST",
            "/api/v1/nodes/join",
            Permission.NODES_JOIN,
            join,
            body=Join,
            returns=Joined,
            summary="Become a node, with a one-time join token",
            audited=True,
        ),
        Endpoint("PUT", "/api/v1/nodes/self/facts", work, facts, body=Facts, summary="Tell the calling node's facts"),
        Endpoint(
            "PUT",
            "/api/v1/nodes/self/heartbeat",
            work,
            heartbeat,
            body=Heartbeat,
            returns=Beat,
            summary="The calling node is there",
        ),
        Endpoint(
            "POST",
            "/api/v1/nodes/self/modules/{name}/token",
            work,
            module_token,
            returns=ModuleToken,
            summary="A token for a module on the calling node",
        ),
    ]

"""Nodes: seen, steered and removed by people; joining, proofs, facts and heartbeats by the nodes themselves."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from llmagentos.api.nodes import (
    Beat,
    Facts,
    Heartbeat,
    Join,
    Joined,
    Labels,
    ModuleToken,
    Node,
    NodeSummary,
    NodeToken,
    Renewal,
    Renewed,
)
from llmagentos.core.errors import InvalidInput
from llmagentos.fleet.availability import Change
from llmagentos.fleet.enrolment import Enrolment
from llmagentos.fleet.nodes import Nodes
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.jobs import node_name

_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PATTERN = re.compile(r"[A-Za-z0-9*?._-]{1,63}")

Lengths = Callable[[], Awaitable[dict[str, int]]]


def endpoints(
    nodes: Nodes, enrolment: Enrolment, *, queue_lengths: Lengths, drop_queue: Callable[[str], Awaitable[None]]
) -> list[Endpoint]:
    """`queue_lengths` by node; `drop_queue` ends what waits for a node that is removed."""
    return [
        *_people(nodes, queue_lengths, drop_queue),
        *_steering(nodes, queue_lengths),
        *_grants(nodes, enrolment),
        *_identities(enrolment),
        *_selves(nodes, enrolment),
    ]


def _people(nodes: Nodes, queue_lengths: Lengths, drop_queue: Callable[[str], Awaitable[None]]) -> list[Endpoint]:
    async def listing(call: Call) -> list[NodeSummary]:
        return await nodes.listing(await queue_lengths(), call.query.get("filter"))

    async def show(call: Call) -> Node:
        return await nodes.show(call.path["name"], await queue_lengths())

    async def remove(call: Call) -> None:
        await nodes.remove(call.path["name"])
        await drop_queue(call.path["name"])

    read, write = Permission.NODES_READ, Permission.NODES_WRITE
    one = "/api/v1/nodes/{name}"
    return [
        Endpoint(
            "GET",
            "/api/v1/nodes",
            read,
            listing,
            returns=list[NodeSummary],
            summary="List nodes; with filter=EXPRESSION those that it matches",
        ),
        Endpoint("GET", one, read, show, returns=Node, summary="One node"),
        Endpoint("DELETE", one, write, remove, summary="Remove a node", audited=True),
    ]


def _steering(nodes: Nodes, queue_lengths: Lengths) -> list[Endpoint]:
    def changing(change: Change) -> Callable[[Call], Awaitable[NodeSummary]]:
        async def do(call: Call) -> NodeSummary:
            return await nodes.change(call.path["name"], change, await queue_lengths())

        return do

    async def revoke(call: Call) -> NodeSummary:
        return await nodes.revoke(call.path["name"], await queue_lengths())

    async def label(call: Call) -> NodeSummary:
        return await nodes.set_labels(call.path["name"], call.body, await queue_lengths())

    acts: list[tuple[str, Callable[[Call], Awaitable[NodeSummary]], str]] = [
        ("cordon", changing("cordon"), "Give a node no new jobs"),
        ("uncordon", changing("uncordon"), "Give a node jobs again"),
        ("drain", changing("drain"), "Give a node no new jobs, and stop its modules"),
        ("revoke", revoke, "End a node's identity: certificate, token, its modules' tokens"),
    ]
    write = Permission.NODES_WRITE
    one = "/api/v1/nodes/{name}"
    return [
        *(
            Endpoint("POST", f"{one}/{name}", write, act, returns=NodeSummary, summary=summary, audited=True)
            for name, act, summary in acts
        ),
        Endpoint(
            "PUT",
            f"{one}/labels",
            write,
            label,
            body=Labels,
            returns=NodeSummary,
            summary="Set labels of a node; null takes one away",
            audited=True,
        ),
    ]


def _grants(nodes: Nodes, enrolment: Enrolment) -> list[Endpoint]:
    async def allow(call: Call) -> None:
        await nodes.require(call.path["name"])
        await enrolment.allow(call.path["name"], _checked(call.path["pattern"]), str(call.identity))

    async def deny(call: Call) -> None:
        await enrolment.deny(call.path["name"], call.path["pattern"])

    write = Permission.NODES_WRITE
    one = "/api/v1/nodes/{name}/allowed/{pattern}"
    return [
        Endpoint("PUT", one, write, allow, summary="Let a node have tokens for modules, by name or *", audited=True),
        Endpoint("DELETE", one, write, deny, summary="Take that back; those tokens end", audited=True),
    ]


def _checked(pattern: str) -> str:
    if not _PATTERN.fullmatch(pattern):
        raise InvalidInput(
            f"{pattern[:80]!r} is no module's name or pattern", hint="letters, digits, dot, dash, underscore, * and ?"
        )
    return pattern


def _identities(enrolment: Enrolment) -> list[Endpoint]:
    async def join(call: Call) -> Joined:
        return await enrolment.join(call.identity, call.body)

    async def exchange(call: Call) -> NodeToken:
        # The identity says who signed the assertion; what it says beside is read here.
        return await enrolment.exchange(call.request.headers["authorization"].partition(" ")[2].strip())

    async def renew(call: Call) -> Renewed:
        return await enrolment.renew(node_name(call.identity), call.body.csr)

    return [
        Endpoint(
            "POST",
            "/api/v1/nodes/join",
            Permission.NODES_JOIN,
            join,
            body=Join,
            returns=Joined,
            summary="Become a node, with a join token",
            audited=True,
        ),
        Endpoint(
            "POST",
            "/api/v1/nodes/self/token",
            Permission.NODE_PROVE,
            exchange,
            returns=NodeToken,
            summary="A node's token, for an assertion signed with the node's key (RFC 7523)",
        ),
        Endpoint(
            "POST",
            "/api/v1/nodes/self/certificate",
            Permission.NODE_WORK,
            renew,
            body=Renewal,
            returns=Renewed,
            summary="The calling node's next certificate",
        ),
    ]


def _selves(nodes: Nodes, enrolment: Enrolment) -> list[Endpoint]:
    async def facts(call: Call) -> None:
        await nodes.set_facts(node_name(call.identity), call.body)

    async def heartbeat(call: Call) -> Beat:
        return await nodes.beat(node_name(call.identity), call.body)

    async def module_token(call: Call) -> ModuleToken:
        module = call.path["name"]
        if not _MODULE.fullmatch(module):
            raise InvalidInput(f"{module[:80]!r} is not a module's name", hint="letters, digits, dot, dash, underscore")
        return ModuleToken(await enrolment.module_token(node_name(call.identity), module))

    work = Permission.NODE_WORK
    return [
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
            summary="A token for a module that the calling node may run",
        ),
    ]

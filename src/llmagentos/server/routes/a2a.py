"""A2A: cards of agents, and messages to them, as JSON-RPC and as HTTP+JSON."""

from __future__ import annotations

import asyncio
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from llmagentos.agents.door import Door
from llmagentos.core.errors import Unavailable
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint, Handler

if TYPE_CHECKING:
    from llmagentos.agents.a2a.http import Face

WELL_KNOWN = "/.well-known/agent-card.json"
SERVER, ONE = "/a2a", "/a2a/{name}"


def endpoints(door: Door, version: str) -> list[Endpoint]:
    """`door` leads to the agents; `version` is the server's."""

    @cache
    def made() -> Face:
        try:
            module = import_module("llmagentos.agents.a2a.http")
        except ModuleNotFoundError as error:
            raise Unavailable(
                f"A2A needs a package that is not installed: {error.name}", hint="pip install 'llmagentos[a2a]'"
            ) from None
        face: Face = module.Face(door, version)
        return face

    async def face() -> Face:
        return await asyncio.to_thread(made)

    async def server_card(call: Call) -> dict[str, Any]:
        return (await face()).server_card(_base(call), await door.agents())

    async def card(call: Call) -> dict[str, Any]:
        return (await face()).card(_base(call), await door.agent(call.path["name"]))

    async def rpc(call: Call) -> Response:
        await _known(door, call)
        return await (await face()).rpc(call.request, call.body, call.identity)

    async def messages(call: Call) -> Response:
        await _known(door, call)
        verb = call.request.url.path.rpartition("/")[2]
        return await (await face()).rest(call.request, call.body or b"", call.identity, verb)

    async def task(call: Call) -> Response:
        await _known(door, call)
        identifier, _, verb = call.path["id"].partition(":")
        call.request.path_params["id"] = identifier
        return await (await face()).rest(call.request, call.body or b"", call.identity, verb or None)

    read = Permission.AGENTS_READ
    cards = [
        Endpoint("GET", WELL_KNOWN, read, server_card, summary="A2A card of the server: every agent is a skill"),
        Endpoint("GET", f"{ONE}{WELL_KNOWN}", read, card, summary="A2A card of one agent"),
    ]
    return [*cards, *_bindings(rpc, messages, task)]


def _bindings(rpc: Handler, messages: Handler, task: Handler) -> list[Endpoint]:
    """JSON-RPC and HTTP+JSON, for the whole server and for one agent."""
    read, ask = Permission.AGENTS_READ, Permission.RUNS_WRITE
    bindings = []
    for path, whom in ((SERVER, "the agent that `metadata.agent` names"), (ONE, "one agent")):

        def asking(below: str, handler: Handler, summary: str, path: str = path) -> Endpoint:
            return Endpoint("POST", path + below, ask, handler, body=bytes, summary=summary, audited=True)

        bindings += [
            asking("", rpc, f"A2A, JSON-RPC: messages and tasks of {whom}"),
            asking("/message:send", messages, f"A2A: ask {whom}"),
            asking("/message:stream", messages, f"A2A: ask {whom}, streamed"),
            asking("/tasks/{id}", task, "A2A: `ID:cancel` stops a task, `ID:subscribe` follows it"),
            Endpoint("GET", f"{path}/tasks", read, messages, summary=f"A2A: tasks of {whom}"),
            Endpoint("GET", f"{path}/tasks/{{id}}", read, task, summary="A2A: one task (`ID:subscribe` follows it)"),
        ]
    return bindings


async def _known(door: Door, call: Call) -> None:
    """Raises `NotFound` for an agent that there is not."""
    if (name := call.path.get("name")) is not None:
        await door.agent(name)


def _base(call: Call) -> str:
    """The origin by which the caller reached us: cards lead back to it."""
    return str(call.request.base_url).rstrip("/")

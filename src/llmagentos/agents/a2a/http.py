"""A2A over HTTP: the package's dispatchers, with our identities in place of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.server.routes import ServerCallContextBuilder
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.server.routes.rest_dispatcher import RestDispatcher
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from llmagentos.agents.a2a import cards
from llmagentos.agents.a2a.serving import AGENT, IDENTITY, RunTasks
from llmagentos.agents.door import Door
from llmagentos.agents.records import Agent
from llmagentos.core.errors import NotFound
from llmagentos.security.identity import Identity


class Face:
    """What clients of A2A reach. Versions 1.0 and, over JSON-RPC, 0.3."""

    def __init__(self, door: Door, version: str) -> None:
        handler, contexts = RunTasks(door), _Contexts()
        self._version = version
        self._rpc = JsonRpcDispatcher(handler, contexts, enable_v0_3_compat=True)
        self._rest = RestDispatcher(handler, contexts)

    async def rpc(self, request: Request, body: bytes, identity: Identity) -> Response:
        """A JSON-RPC request to the agent in the path, or to the server."""
        return await self._rpc.handle_requests(_with(request, body, identity))

    async def rest(self, request: Request, body: bytes, identity: Identity, verb: str | None = None) -> Response:
        """A request of the binding HTTP+JSON: by method, path, and the verb that stands behind a task's id."""
        wanted = _with(request, body, identity)
        rest = self._rest
        operations: dict[tuple[str, str | None], Any] = {
            ("POST", "message:send"): rest.on_message_send,
            ("POST", "message:stream"): rest.on_message_send_stream,
            ("POST", "cancel"): rest.on_cancel_task,
            ("POST", "subscribe"): rest.on_subscribe_to_task,
            ("GET", "subscribe"): rest.on_subscribe_to_task,
            ("GET", "tasks"): rest.list_tasks,
            ("GET", None): rest.on_get_task,
        }
        operation = operations.get((request.method, verb))
        if operation is None:
            raise NotFound(f"there is nothing to {request.method} at {request.url.path}")
        response: Response = await operation(wanted)
        return response

    def card(self, base: str, agent: Agent) -> dict[str, Any]:
        """The card of one agent."""
        return agent_card_to_dict(cards.of_agent(base, agent))

    def server_card(self, base: str, agents: Sequence[Agent]) -> dict[str, Any]:
        """The card of the whole server."""
        return agent_card_to_dict(cards.of_server(base, agents, self._version))


class _Contexts(ServerCallContextBuilder):
    def build(self, request: Request) -> ServerCallContext:
        """Who calls, and whom."""
        state = {
            "headers": dict(request.headers),
            AGENT: request.path_params.get("name"),
            IDENTITY: request.scope[IDENTITY],
        }
        return ServerCallContext(state=state)


def _with(request: Request, body: bytes, identity: Identity) -> Request:
    """The request once more, its body still to be read, which was read and bounded before."""
    told = False

    async def receive() -> Message:
        nonlocal told
        if told:
            return await request.receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({**request.scope, IDENTITY: identity, "path_params": dict(request.path_params)}, receive)

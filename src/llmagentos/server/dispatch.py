"""Endpoints as routes: one route a path, which answers every method, so that none answers without identity."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from llmagentos.server.endpoint import Endpoint
from llmagentos.server.respond import Responder


class Dispatch:
    """All methods of one path."""

    def __init__(self, methods: Mapping[str, Endpoint], responder: Responder) -> None:
        self._methods = methods
        self._responder = responder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        method = "GET" if request.method == "HEAD" else request.method
        response = await self._responder.respond(request, self._methods.get(method), allowed=tuple(self._methods))
        await response(scope, receive, send)


def routes(endpoints: Sequence[Endpoint], responder: Responder) -> list[Route]:
    """Starlette routes; fixed segments come before parameters, so that `/nodes/self` is not a node's name."""
    paths: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    ordered = sorted(paths, key=_order)
    return [Route(path, Dispatch(paths[path], responder)) for path in ordered]


def _order(path: str) -> tuple[bool, list[tuple[bool, str]]]:
    """What takes all the rest of a path comes last."""
    return path.endswith(":path}"), [(bool(re.match(r"{", part)), part) for part in path.split("/")]

"""The console's page of what a node measures and logs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.responses import Response

from llmagentos.core.errors import InvalidInput
from llmagentos.observe.telemetry import Telemetry
from llmagentos.security.identity import Permission
from llmagentos.server.console.render import Pages, translation
from llmagentos.server.console.views import charts
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.telemetry import known_node

LINES = 200
EVERY_S = 5


def endpoints(telemetry: Telemetry, pages: Pages, nodes: Callable[[], Awaitable[list[str]]]) -> list[Endpoint]:
    """`/nodes/{name}/metrics`; `nodes` names all there are."""

    async def show(call: Call) -> Response:
        name = await known_node(call, nodes)
        chosen = call.query.get("range", "1h")
        if chosen not in charts.RANGES:
            raise InvalidInput(f"range must be one of {', '.join(charts.RANGES)}, not {chosen[:80]!r}")
        text = call.query.get("text") or None
        until = time.time()
        since = until - charts.RANGES[chosen]
        series, lines = await asyncio.gather(
            telemetry.series(name, match="node_*", since=since, until=until, points=charts.POINTS),
            telemetry.lines(name, source=None, text=text, since=None, limit=LINES),
        )
        t = translation(call.request)
        return pages.page(
            call.request,
            call.identity,
            "telemetry.html",
            section="nodes",
            topics="topic=nodes",
            every=EVERY_S,
            node=name,
            lines=lines,
            text=text or "",
            **charts.page(series, since, until, chosen, t),
        )

    return [Endpoint("GET", "/nodes/{name}/metrics", Permission.NODES_READ, show)]

"""What nodes measure and log: sent by themselves, asked for by people and by a Prometheus server."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.responses import Response

from llmagentos.api.telemetry import MAX_POINTS, Batch, LogEntry, Sample, Series
from llmagentos.core.errors import InvalidInput, NotFound, nearest
from llmagentos.core.events import LAGGED, Hub
from llmagentos.fleet.looks import Looks
from llmagentos.observe import exposition
from llmagentos.observe.telemetry import Telemetry
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.jobs import node_name
from llmagentos.server.sse import Event, stream

MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_ROWS = 5000
_FAR = 2.0**40


def endpoints(
    telemetry: Telemetry, hub: Hub, nodes: Callable[[], Awaitable[list[str]]], looks: Looks
) -> list[Endpoint]:
    """`nodes` names all there are; `looks` says how often to look for what other servers were sent."""
    return [_batch(telemetry), _exposed(telemetry), *_samples(telemetry, nodes), _logs(telemetry, hub, nodes, looks)]


def _batch(telemetry: Telemetry) -> Endpoint:
    async def take(call: Call) -> None:
        await telemetry.take(node_name(call.identity), call.body)

    return Endpoint(
        "POST",
        "/api/v1/nodes/self/telemetry",
        Permission.NODE_WORK,
        take,
        body=Batch,
        summary="What the calling node measured and logged",
        max_body=MAX_BATCH_BYTES,
    )


def _exposed(telemetry: Telemetry) -> Endpoint:
    async def render(_: Call) -> Response:
        return Response(exposition.render(await telemetry.current()), media_type=exposition.CONTENT_TYPE)

    summary = "The nodes' last values in Prometheus text format, named as node-exporter names them"
    return Endpoint("GET", "/metrics/nodes", Permission.METRICS_READ, render, summary=summary)


async def known_node(call: Call, nodes: Callable[[], Awaitable[list[str]]]) -> str:
    """The name in the path. Raises `NotFound` when there is no such node."""
    name, known = call.path["name"], await nodes()
    if name not in known:
        close = nearest(name, known)
        hint = f"did you mean {close!r}?" if close else "`llmctl nodes` lists them"
        raise NotFound(f"there is no node {name[:80]!r}", hint=hint)
    return name


def _samples(telemetry: Telemetry, nodes: Callable[[], Awaitable[list[str]]]) -> list[Endpoint]:
    async def latest(call: Call) -> Sample | None:
        return await telemetry.latest(await known_node(call, nodes))

    async def series(call: Call) -> list[Series]:
        name = await known_node(call, nodes)
        now = time.time()
        since, until = call.number("since", now - 3600, most=_FAR), call.number("until", now, most=_FAR)
        if since >= until:
            raise InvalidInput("since must be before until")
        points = max(1, int(call.number("points", 240, most=MAX_POINTS)))
        return await telemetry.series(name, match=call.query.get("match"), since=since, until=until, points=points)

    read = Permission.NODES_READ
    return [
        Endpoint(
            "GET",
            "/api/v1/nodes/{name}/samples/latest",
            read,
            latest,
            returns=Sample | None,
            summary="What a node measured last",
        ),
        Endpoint(
            "GET",
            "/api/v1/nodes/{name}/samples",
            read,
            series,
            returns=list[Series],
            summary="What a node measured over a time (query: match, since, until, points)",
        ),
    ]


def _logs(telemetry: Telemetry, hub: Hub, nodes: Callable[[], Awaitable[list[str]]], looks: Looks) -> Endpoint:
    async def logs(call: Call) -> Response | list[LogEntry]:
        name = await known_node(call, nodes)
        source, text = call.query.get("source"), call.query.get("text")
        if call.flag("follow"):
            last = await telemetry.last_line(name)
            return stream(_follow(telemetry, hub, looks, name, source, text, last))
        since = call.number("since", 0, most=_FAR) or None
        limit = max(1, int(call.number("limit", 200, most=MAX_ROWS)))
        return await telemetry.lines(name, source=source, text=text, since=since, limit=limit)

    return Endpoint(
        "GET",
        "/api/v1/nodes/{name}/logs",
        Permission.NODES_READ,
        logs,
        returns=list[LogEntry],
        summary="Lines of a node's logs, the newest; with follow=1 as they come",
        streams=True,
    )


async def _follow(
    telemetry: Telemetry, hub: Hub, looks: Looks, node: str, source: str | None, text: str | None, last: int
) -> AsyncIterator[Event]:
    """The lines after the one with the id `last`."""
    fits = re.compile(fnmatch.translate(source or "*")).fullmatch
    with hub.subscribe(f"logs:{node}") as items, looks.waiting():
        item: object = LAGGED
        while True:
            if item is LAGGED:  # what was missed is stored
                found = await telemetry.lines(node, source=source, text=text, since=None, limit=MAX_ROWS, after=last)
            else:
                found = [item] if isinstance(item, LogEntry) and item.id > last else []
            for entry in found:
                last = entry.id
                if fits(entry.source) and (text is None or text.lower() in entry.text.lower()):
                    yield Event("line", entry, id=str(entry.id))
            try:
                item = await items.next(looks.within(None))
            except TimeoutError:
                item = LAGGED  # another server may have been sent some
            except StopAsyncIteration:
                return

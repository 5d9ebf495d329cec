"""The console's pages of nodes, and what can be done to nodes from them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from starlette.responses import Response

from llmagentos.api.jobs import JobSummary
from llmagentos.api.nodes import Node, NodeSummary
from llmagentos.core.errors import Conflict, InvalidInput
from llmagentos.security.identity import Permission
from llmagentos.server.console.forms import see_other
from llmagentos.server.console.paging import page as page_of
from llmagentos.server.console.render import Pages, language_choice, translation
from llmagentos.server.console.views import jobs, nodes
from llmagentos.server.endpoint import Call, Endpoint, Handler

MAX_JOBS = 20
MAX_FILTER = 1000


class Listing(Protocol):
    """All nodes, or those that an expression matches. Raises `InvalidInput` for one that is none."""

    async def __call__(self, expression: str | None) -> Sequence[NodeSummary]: ...


class Jobs(Protocol):
    """Jobs, newest first."""

    async def __call__(self, *, limit: int, node: str | None = None) -> list[JobSummary]: ...


def endpoints(
    pages: Pages,
    *,
    listing: Listing,
    node: Callable[[str], Awaitable[Node]],
    recent: Jobs,
    acts: Mapping[str, Callable[[str], Awaitable[object]]],
) -> list[Endpoint]:
    """`GET /nodes`, `GET /nodes/{name}` and one `POST /nodes/{name}/ACT` for each of `acts`."""
    read, write = Permission.NODES_READ, Permission.NODES_WRITE
    return [
        Endpoint("GET", "/nodes", read, _listing(pages, listing)),
        Endpoint("GET", "/nodes/{name}", read, _one(pages, node, recent)),
        *(
            Endpoint("POST", f"/nodes/{{name}}/{name}", write, _doing(act, gone=name == "remove"), audited=True)
            for name, act in acts.items()
        ),
    ]


def _listing(pages: Pages, listing: Listing) -> Handler:
    async def show(call: Call) -> Response:
        expression = call.query.get("filter", "").strip()[:MAX_FILTER]
        error: InvalidInput | None = None
        found: Sequence[NodeSummary]
        try:
            found = await listing(expression or None)
        except InvalidInput as raised:
            error, found = raised, []
        shown = page_of(found, call.query.get("page"), {"filter": expression})
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "nodes.html",
            section="nodes",
            topics="topic=nodes",
            nodes=nodes.rows(shown.items),
            shown=shown,
            counts=Counter(node.state for node in found).most_common(),
            filter=expression,
            error=error,
            server=f"{call.request.url.scheme}://{call.request.url.netloc}",
        )

    return show


def _one(pages: Pages, node: Callable[[str], Awaitable[Node]], recent: Jobs) -> Handler:
    async def show(call: Call) -> Response:
        name = call.path["name"]
        found, newest = await asyncio.gather(node(name), recent(limit=MAX_JOBS, node=name))
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "node.html",
            section="nodes",
            topics="topic=nodes&topic=jobs",
            node=nodes.page(found, translation(call.request)),
            jobs=jobs.rows(newest, translation(call.request)),
        )

    return show


def _doing(act: Callable[[str], Awaitable[object]], *, gone: bool) -> Handler:
    async def do(call: Call) -> Response:
        name = call.path["name"]
        with suppress(Conflict):  # somebody else was first: its page says how it is
            await act(name)
        return see_other("/nodes" if gone else f"/nodes/{name}")

    return do

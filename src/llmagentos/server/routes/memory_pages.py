"""The console's page of what agents remember: each caller's own, an administrator may name another user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response

from llmagentos.api.memory import Fact
from llmagentos.core.errors import CallerError, NotFound
from llmagentos.security.identity import Kind, Permission
from llmagentos.server.console.forms import form_of, see_other
from llmagentos.server.console.render import Pages, language_choice
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.sessions import user_of

MAX_ROWS = 100
MAX_FOUND = 20
MAX_QUERY = 1000
MAX_FORM = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySources:
    """Where the page gets what it shows, and what it does."""

    listing: Callable[[str, str | None, int], Awaitable[list[Fact]]]
    """Of a user, of one agent or all, at most so many; the newest first."""
    search: Callable[[str, str, str, int], Awaitable[list[Fact]]]
    """Agent, user, query, at most so many; the best first."""
    forget: Callable[[str, str], Awaitable[bool]]
    """A user's fact; whether there was one."""
    agents: Callable[[], Awaitable[list[str]]]
    """Those that have a long-term memory."""


def endpoints(sources: MemorySources, pages: Pages) -> list[Endpoint]:
    """`GET /memory` with `agent`, `query` and `user`, and `POST /memory/{id}` to forget a fact."""

    async def show(call: Call) -> Response:
        agent, query, user = call.query.get("agent", ""), call.query.get("query", "").strip(), user_of(call)
        known, error, found = await sources.agents(), None, list[Fact]()
        try:
            if query and agent:
                found = await sources.search(agent, user, query[:MAX_QUERY], MAX_FOUND)
            else:
                found = await sources.listing(user, agent or None, MAX_ROWS + 1)
        except CallerError as raised:
            error = raised
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "memory.html",
            section="sessions",
            facts=found[:MAX_ROWS],
            more=len(found) > MAX_ROWS,
            agents=known,
            agent=agent,
            query=query,
            user=user,
            admin=call.identity.kind is Kind.ADMIN,
            error=error,
        )

    async def forget(call: Call) -> Response:
        user = user_of(call)
        if not await sources.forget(user, call.path["id"]):
            raise NotFound(f"there is no fact {call.path['id']!r}", hint="somebody else may have been first")
        form = {name: values[0] for name, values in form_of(call.body).items()}
        back = {name: form[name][:MAX_QUERY] for name in ("agent", "query") if form.get(name)}
        return see_other("/memory", **back, user=user)

    write = Permission.MEMORY_WRITE
    return [
        Endpoint("GET", "/memory", Permission.MEMORY_READ, show),
        Endpoint("POST", "/memory/{id}", write, forget, body=bytes, max_body=MAX_FORM, audited=True),
    ]

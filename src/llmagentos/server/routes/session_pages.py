"""The console's pages of sessions: each caller's own, an administrator may see everybody's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response

from llmagentos.api.sessions import SessionDetail, SessionInfo
from llmagentos.core.errors import Conflict
from llmagentos.security.identity import Kind, Permission
from llmagentos.server.console.forms import see_other
from llmagentos.server.console.render import Pages, language_choice
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.sessions import require_admin, user_of

MAX_ROWS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSources:
    """Where these pages get what they show, and what they do."""

    listing: Callable[[str | None, int], Awaitable[list[SessionInfo]]]
    """Of a user, or of everybody; at most so many."""
    show: Callable[[str, str, str], Awaitable[SessionDetail]]
    """Agent, name, user."""
    delete: Callable[[str, str, str], Awaitable[None]]


def endpoints(sources: SessionSources, pages: Pages) -> list[Endpoint]:
    """`GET /sessions`, `GET /sessions/{agent}/{name}` and deleting one."""

    async def listing(call: Call) -> Response:
        everybody = call.flag("all")
        if everybody:
            require_admin(call)
        found = await sources.listing(None if everybody else str(call.identity), MAX_ROWS + 1)
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "sessions.html",
            section="sessions",
            topics="topic=runs",
            sessions=found[:MAX_ROWS],
            more=len(found) > MAX_ROWS,
            everybody=everybody,
            admin=call.identity.kind is Kind.ADMIN,
        )

    async def show(call: Call, error: Conflict | None = None) -> Response:
        user = user_of(call)
        session = await sources.show(call.path["agent"], call.path["name"], user)
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "session.html",
            section="sessions",
            topics="topic=runs",
            session=session,
            own=user == str(call.identity),
            error=error,
        )

    async def delete(call: Call) -> Response:
        try:
            await sources.delete(call.path["agent"], call.path["name"], user_of(call))
        except Conflict as error:  # it works on a request
            return await show(call, error)
        return see_other("/sessions")

    one = "/sessions/{agent}/{name:path}"
    return [
        Endpoint("GET", "/sessions", Permission.RUNS_READ, listing),
        Endpoint("GET", one, Permission.RUNS_READ, show),
        Endpoint("POST", one, Permission.RUNS_WRITE, delete, audited=True),
    ]

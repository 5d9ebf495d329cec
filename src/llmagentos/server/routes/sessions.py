"""Sessions: each caller's own. An administrator may name another user, which the audit log shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from llmagentos.agents.log import Log
from llmagentos.api.sessions import SessionDetail, SessionInfo
from llmagentos.core.errors import Forbidden, NotFound
from llmagentos.security.identity import Kind, Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.storage.sessions import SessionRecords

_MOST = 1000


class Sessions:
    """What is known of sessions; `state` is what a run's log adds up to."""

    def __init__(self, records: SessionRecords, state: Callable[[str], Awaitable[Log]]) -> None:
        self._records = records
        self._state = state

    async def listing(self, *, user: str | None, agent: str | None = None, limit: int = _MOST) -> list[SessionInfo]:
        """Sessions of a user, or without one of everybody, the last used first."""
        return await self._records.listing(by=user, agent=agent, limit=limit)

    async def show(self, agent: str, name: str, user: str) -> SessionDetail:
        """What the next run of a session would know. Raises `NotFound`."""
        run = await self._records.newest(agent, name, user)
        if run is None:
            raise _unknown(agent, name)
        log = await self._state(run)
        summary, turns = log.after if log.ended_at is not None else log.before
        return SessionDetail(name, agent, user, summary, turns)

    async def delete(self, agent: str, name: str, user: str) -> None:
        """Delete a session and its runs. Raises `NotFound`, or `Conflict` while it works on a request."""
        if not await self._records.delete(agent, name, user):
            raise _unknown(agent, name)


def endpoints(sessions: Sessions) -> list[Endpoint]:
    """`sessions` knows them."""

    async def listing(call: Call) -> list[SessionInfo]:
        everybody = call.flag("all")
        if everybody:
            require_admin(call)
        return await sessions.listing(user=None if everybody else str(call.identity), agent=call.query.get("agent"))

    async def show(call: Call) -> SessionDetail:
        return await sessions.show(call.path["agent"], call.path["name"], user_of(call))

    async def delete(call: Call) -> None:
        await sessions.delete(call.path["agent"], call.path["name"], user_of(call))

    read, write = Permission.RUNS_READ, Permission.RUNS_WRITE
    all_, one = "/api/v1/sessions", "/api/v1/sessions/{agent}/{name}"
    return [
        Endpoint("GET", all_, read, listing, returns=list[SessionInfo], summary="List sessions (`agent`, `all`)"),
        Endpoint("GET", one, read, show, returns=SessionDetail, summary="What a session remembers (`user`)"),
        Endpoint("DELETE", one, write, delete, summary="Delete a session and its runs (`user`)", audited=True),
    ]


def user_of(call: Call) -> str:
    """Whose things are meant: the caller's own, or with `user` another's. Raises `Forbidden`."""
    user = call.query.get("user")
    if user is None or user == str(call.identity):
        return str(call.identity)
    require_admin(call)
    return user


def require_admin(call: Call) -> None:
    """Raises `Forbidden` for anybody but an administrator."""
    if call.identity.kind is not Kind.ADMIN:
        raise Forbidden(f"{call.identity} sees only what is their own", hint="an administrator may name a user")


def _unknown(agent: str, name: str) -> NotFound:
    return NotFound(f"there is no session {name!r} with the agent {agent!r}", hint="`llmctl sessions` lists them")

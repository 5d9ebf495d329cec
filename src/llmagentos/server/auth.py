"""Who is calling: bearer tokens for programs, a session cookie for the console."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

from llmagentos.core.clock import Clock
from llmagentos.core.errors import Forbidden, Unauthenticated
from llmagentos.security import tokens
from llmagentos.security.identity import Identity
from llmagentos.server.peers import peer
from llmagentos.storage.gathering import Gathered
from llmagentos.storage.tokens import TokenRecord, TokenRecords

COOKIE = "llmagentos_session"
SESSION_S = 12 * 3600.0
_REMEMBER_S = 5.0
_REMEMBER = 20_000
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Authenticator:
    """Finds the identity of a request. Known tokens are remembered for 5 s, revoked ones forgotten at once.

    `tls`: the server itself speaks TLS, so tokens that are bound to a client certificate need it.
    """

    def __init__(self, records: TokenRecords, clock: Clock, *, tls: bool = False) -> None:
        self._records = records
        self._clock = clock
        self._tls = tls
        self._stored = Gathered(records.find)
        self._assertions: Callable[[str], Awaitable[Identity | None]] | None = None
        self._forgotten = 0
        self._known: OrderedDict[tuple[str, bool], tuple[TokenRecord, float]] = OrderedDict()

    def accept(self, assertions: Callable[[str], Awaitable[Identity | None]]) -> None:
        """Also take assertions, that is credentials which are no tokens of ours; None for what is none either."""
        self._assertions = assertions

    async def identify(self, connection: HTTPConnection, method: str) -> Identity | None:
        """The caller, by `Authorization: Bearer` or else by the console's cookie; None without a valid one.

        Raises `Forbidden` for a change that a page of another origin makes with the cookie.
        """
        scheme, _, credential = connection.headers.get("authorization", "").partition(" ")
        if scheme:
            return await self._by_header(connection, scheme, credential.strip())
        cookie = connection.cookies.get(COOKIE)
        if cookie is None:
            return None
        record = await self._find(cookie, session=True)
        if record is not None and method not in _SAFE:
            _require_same_origin(connection)
        return record.identity if record is not None else None

    async def _by_header(self, connection: HTTPConnection, scheme: str, credential: str) -> Identity | None:
        if scheme.lower() != "bearer":
            return None
        if not credential.startswith(tokens.PREFIX):
            return await self._assertions(credential) if self._assertions is not None else None
        record = await self._find(credential, session=False)
        if record is None:
            return None
        if self._tls and record.binding is not None and peer(connection.scope) != record.binding:
            raise Unauthenticated(
                f"the token of {record.identity} works only with the TLS client certificate that it was given for",
                hint="connect to the server itself; a proxy in between that ends TLS hides the certificate",
            )
        return record.identity

    async def bearer(self, token: str) -> Identity | None:
        """Whom a bearer token stands for."""
        record = await self._find(token, session=False)
        return record.identity if record is not None else None

    async def _find(self, token: str, *, session: bool) -> TokenRecord | None:
        if not token.startswith(tokens.PREFIX) or len(token) > 200:
            return None
        key = (tokens.digest(token), session)
        now = self._clock.monotonic()
        known = self._known.get(key)
        if known is not None and now < known[1] and not _expired(known[0], self._clock):
            return known[0]
        asked = self._forgotten
        record = await self._stored(key)
        if record is None:
            self._known.pop(key, None)
            return None
        if not record.one_time and asked == self._forgotten:  # else it may have been revoked meanwhile
            self._known[key] = (record, now + _REMEMBER_S)
            if len(self._known) > _REMEMBER:
                self._known.popitem(last=False)
        return record

    async def open_session(self, identity: Identity, response: Response, *, secure: bool) -> None:
        """Log `identity` in: the cookie on `response` is a session of 12 hours."""
        secret, _ = await self._records.create(
            identity.kind, identity.subject, by=str(identity), ttl=SESSION_S, session_of=identity.token_id or ""
        )
        response.set_cookie(
            COOKIE, secret, max_age=int(SESSION_S), httponly=True, samesite="strict", secure=secure, path="/"
        )

    async def close_session(self, connection: HTTPConnection, response: Response) -> None:
        """Log out."""
        cookie = connection.cookies.get(COOKIE, "")
        record = await self._stored((tokens.digest(cookie), True))
        if record is not None:
            await self.revoke(record.id)
        response.delete_cookie(COOKIE, path="/")

    async def revoke(self, token_id: str) -> bool:
        """Revoke a token (and its sessions) with immediate effect; whether there was one."""
        done = await self._records.revoke(token_id)
        self.forget()
        return done

    def forget(self) -> None:
        """Ask storage again for every token: some were revoked."""
        self._known.clear()
        self._forgotten += 1


def _expired(record: TokenRecord, clock: Clock) -> bool:
    return record.expires is not None and record.expires <= clock.time()


def _require_same_origin(connection: HTTPConnection) -> None:
    """SameSite=Strict already keeps foreign pages out; this also covers sites on the same host."""
    origin = connection.headers.get("origin")
    if origin is None or urlsplit(origin).netloc != connection.headers.get("host"):
        raise Forbidden(f"a change with the console's cookie must come from the console, not from {origin!r}")

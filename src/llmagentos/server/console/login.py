"""Ways into the console: one-time links, the limit on guesses, and where to go afterwards."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass
from urllib.parse import urlsplit

from llmagentos.core.clock import Clock
from llmagentos.core.errors import TooManyRequests
from llmagentos.security.identity import Identity

LINK_TTL_S = 600.0
_MOST_LINKS = 256
_MOST_CLIENTS = 4096


@dataclass(frozen=True, slots=True)
class _Link:
    identity: Identity
    expires: float


class LoginLinks:
    """Codes that log their holder in once, within ten minutes. Only their hashes are kept, in memory."""

    def __init__(self, clock: Clock, *, ttl: float = LINK_TTL_S) -> None:
        self._clock = clock
        self._ttl = ttl
        self._links: OrderedDict[bytes, _Link] = OrderedDict()

    def create(self, identity: Identity) -> str:
        """A new code that stands for `identity`; the oldest codes go when there are too many."""
        code = secrets.token_urlsafe(24)
        self._links[_digest(code)] = _Link(identity, self._clock.monotonic() + self._ttl)
        while len(self._links) > _MOST_LINKS:
            self._links.popitem(last=False)
        return code

    def redeem(self, code: str) -> Identity | None:
        """The identity of `code`, which is used up by this; None when unknown, used or too old."""
        link = self._links.pop(_digest(code), None)
        return link.identity if link is not None and self._clock.monotonic() < link.expires else None


class Attempts:
    """At most `most` failed logins a client within `window` seconds, so that nobody guesses at leisure."""

    def __init__(self, clock: Clock, *, most: int = 10, window: float = 300.0) -> None:
        self._clock = clock
        self._most = most
        self._window = window
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Raises `TooManyRequests` when `client` has failed too often of late."""
        failed = self._recent(client)
        if len(failed) >= self._most:
            wait = failed[0] + self._window - self._clock.monotonic()
            raise TooManyRequests("too many failed logins from this address", retry_after=max(1.0, wait))

    def failed(self, client: str) -> None:
        """Count one failed login."""
        failed = self._recent(client)
        failed.append(self._clock.monotonic())
        self._failed[client] = failed
        self._failed.move_to_end(client)
        while len(self._failed) > _MOST_CLIENTS:
            self._failed.popitem(last=False)

    def _recent(self, client: str) -> deque[float]:
        failed = self._failed.get(client, deque())
        while failed and failed[0] <= self._clock.monotonic() - self._window:
            failed.popleft()
        if not failed:
            self._failed.pop(client, None)
        return failed


def safe_next(target: str | None) -> str:
    """`target` when it is a path on this server, else `/`: a login must not send people elsewhere.

    Browsers read `//host`, `/\\host` and control characters as parts of a host, so only plain paths pass.
    """
    if not target or not target.startswith("/") or target.startswith(("//", "/login", "/logout")):
        return "/"
    if "\\" in target or any(ord(character) < 33 or ord(character) == 127 for character in target):
        return "/"
    parts = urlsplit(target)
    return target if not parts.scheme and not parts.netloc else "/"


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()

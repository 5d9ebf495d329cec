"""Tokens for service calls: fetched once a service, renewed at half their life, kept while the server is away."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from llmagentos.api.tokens import ServiceToken
from llmagentos.core.clock import Clock
from llmagentos.core.errors import OperatorError

_AGAIN_S = 10.0
_REMEMBER = 1024


@dataclass(slots=True)
class _Held:
    token: str
    renew_at: float
    expires: float


class ServiceTokens:
    """`fetch(service)` asks for a token. Belongs to one event loop."""

    def __init__(self, fetch: Callable[[str], Awaitable[ServiceToken]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._fetching: dict[str, asyncio.Lock] = {}

    def held(self, service: str) -> str | None:
        """The token for `service` when it needs no renewal yet."""
        found = self._held.get(service)
        return found.token if found is not None and self._clock.monotonic() < found.renew_at else None

    async def get(self, service: str) -> str:
        """A token for `service`. Raises what `fetch` raises when there is none that still works."""
        if (token := self.held(service)) is not None:
            return token
        async with self._fetching.setdefault(service, asyncio.Lock()):
            return self.held(service) or await self._renew(service)

    def forget(self, service: str, token: str) -> None:
        """An instance did not accept `token`: the server's keys may be new ones."""
        found = self._held.get(service)
        if found is not None and found.token == token:
            del self._held[service]

    async def _renew(self, service: str) -> str:
        old = self._held.get(service)
        try:
            fresh = await self._fetch(service)
        except OperatorError:
            now = self._clock.monotonic()
            if old is None or now >= old.expires:
                raise
            old.renew_at = now + _AGAIN_S
            return old.token
        now = self._clock.monotonic()
        self._held[service] = _Held(fresh.token, now + fresh.expires_in / 2, now + fresh.expires_in)
        while len(self._held) > _REMEMBER:
            self._fetching.pop(self._held.popitem(last=False)[0], None)
        return fresh.token

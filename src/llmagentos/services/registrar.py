"""Keeps an instance registered: renews its lease, and registers again wherever the server is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llmagentos.api import registry
from llmagentos.api.registry import Registered, Registration
from llmagentos.core import log
from llmagentos.core.errors import CallerError, Conflict, LLMAgentOSError, NotFound, OperatorError
from llmagentos.core.lifecycle import Backoff
from llmagentos.services.link import ServerLink

_log = log.get(__name__)
_QUICK_S = 2.0


class Registrar:
    """Registers what `registration()` describes; `accepted` gets each answer (its keys verify callers)."""

    def __init__(
        self, link: ServerLink, registration: Callable[[], Registration], accepted: Callable[[Registered], None]
    ) -> None:
        self._link = link
        self._registration = registration
        self._accepted = accepted
        self._current: Registered | None = None
        self._asked: asyncio.Future[Registered] | None = None

    async def first(self) -> None:
        """Register; waits for a server that is away, and for the lease of a crashed one with our service's name.

        Raises `CallerError` when the server does not want this instance.
        """
        backoff = Backoff(first=0.2, most=3.0)
        conflicts = 0
        while True:
            try:
                await self._register()
                return
            except Conflict as error:
                conflicts += 1
                if conflicts > 8:
                    raise
                reason = error.message
            except OperatorError as error:
                reason = error.message
            _log.warning("not registered yet, trying again", reason=reason)
            await asyncio.sleep(backoff.died(0.0))
            await self._link.again()

    async def keep(self) -> None:
        """Stay registered until cancelled."""
        while True:
            if self._current is not None:
                await asyncio.sleep(self._current.lease_s / 3)
            await self._renewed()

    async def _renewed(self) -> None:
        """Renew the lease or register again, however often it takes: the lease must not run out between two tries."""
        backoff = Backoff(first=0.2, most=3.0)
        while True:
            current = self._current
            try:
                if current is None:
                    await self._register()
                else:
                    await registry.renew(self._link.api, current.instance, timeout=current.lease_s / 3)
                return
            except LLMAgentOSError as error:
                if current is not None and isinstance(error, NotFound):
                    _log.warning("the server does not know this instance: registering again")
                    self._current = None
                    continue
                _log.warning("registration not renewed, trying again", reason=error.message)
                if isinstance(error, CallerError):
                    self._current = None  # another server, or another token: introduce ourselves anew
                await asyncio.sleep(backoff.died(0.0))
                if await self._link.again():
                    self._current = None

    async def drain(self) -> None:
        """Ask callers to go elsewhere, if the server can be told."""
        await self._settle()
        await self._quietly(registry.drain)

    async def leave(self) -> None:
        """Deregister, if the server can be told; else the lease runs out."""
        await self._settle()
        await self._quietly(registry.deregister)

    async def _settle(self) -> None:
        """Hear the answer to a registration that nobody waits for any more: it may have been carried out."""
        asked, self._asked = self._asked, None
        if asked is None:
            return
        await asyncio.wait([asked], timeout=_QUICK_S)
        if not asked.done():
            asked.cancel()
        (answer,) = await asyncio.gather(asked, return_exceptions=True)
        if isinstance(answer, Registered):
            self._current = answer

    async def _quietly(self, tell: Callable[..., object]) -> None:
        if self._current is None:
            return
        try:
            await tell(self._link.api, self._current.instance, timeout=_QUICK_S)  # type: ignore[misc]
        except LLMAgentOSError as error:
            _log.info("the server was not told", reason=error.message)

    async def _register(self) -> None:
        registration = self._registration()
        self._asked = asyncio.ensure_future(registry.register(self._link.api, registration))
        self._current = await asyncio.shield(self._asked)  # on when we are cancelled: see `_settle`
        self._asked = None
        self._accepted(self._current)
        _log.info("registered", instance=self._current.instance, address=registration.address)

"""A program's line to the server: found by discovery, found again after failures, followed for the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from llmagentos.api import registry
from llmagentos.api.client import ApiClient
from llmagentos.api.registry import Snapshot
from llmagentos.api.tokens import ServiceToken
from llmagentos.core import log
from llmagentos.core.discovery import Credentials, discover
from llmagentos.core.errors import LLMAgentOSError, OperatorError
from llmagentos.core.lifecycle import Backoff
from llmagentos.services.directory import Directory

_log = log.get(__name__)


class ServerLink:
    """The client of the server. After a failure `again()` asks discovery anew: another server may have taken over."""

    def __init__(self, find: Callable[[], Credentials] = discover) -> None:
        self._find = find
        self.credentials = find()
        self.api = _client(self.credentials)

    async def again(self) -> bool:
        """Use what discovery finds now, and say whether that is new; keeps what it has when there is nothing else."""
        try:
            found = self._find()
            if found == self.credentials:
                return False
            fresh = _client(found)
        except OperatorError:
            return False
        old, self.api, self.credentials = self.api, fresh, found
        await old.aclose()
        return True

    async def service_token(self, service: str) -> ServiceToken:
        """A token for calls to `service`."""
        return await registry.service_token(self.api, service=service)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.api.aclose()


def _client(known: Credentials) -> ApiClient:
    return ApiClient(known.server, known.token, tls=known.tls(), timeout=10.0)


class Follower:
    """Keeps a `Directory` as the server's registry has it, and as it last was while the server is away."""

    def __init__(self, link: ServerLink, directory: Directory) -> None:
        self._link = link
        self._directory = directory
        self._known = asyncio.Event()
        self._failed: Exception | None = None
        self._tried = asyncio.Event()

    async def ready(self) -> None:
        """Wait for the first snapshot. Raises why there is none when the server could not be asked."""
        if self._known.is_set():
            return
        await self._tried.wait()
        if not self._known.is_set() and self._failed is not None:
            raise self._failed

    async def follow(self) -> None:
        """Follow the registry until cancelled."""
        backoff = Backoff(first=0.1, most=3.0, healthy=5.0)
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                await self._stream()
                reason = "the stream ended"
            except (LLMAgentOSError, msgspec.MsgspecError) as error:
                self._failed = error
                reason = str(error)
            self._tried.set()
            _log.debug("registry not followed", reason=reason)
            await asyncio.sleep(backoff.died(loop.time() - begun))
            await self._link.again()

    async def _stream(self) -> None:
        async with registry.watch(self._link.api) as changes:
            async for change in changes:
                if isinstance(change, Snapshot):
                    self._directory.replace(change.instances)
                    self._known.set()
                    self._tried.set()
                else:
                    self._directory.apply(change)

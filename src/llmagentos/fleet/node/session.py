"""The API as this node: tokens and certificates are renewed on the way, before anybody notices."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llmagentos.api import nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.http import HttpClient, Response
from llmagentos.api.nodes import NodeRevoked, NodeToken
from llmagentos.core import log, metrics
from llmagentos.core.discovery import Credentials
from llmagentos.core.errors import LLMAgentOSError, Unauthenticated
from llmagentos.core.files import write_whole
from llmagentos.core.state import unusable
from llmagentos.fleet.node import keys
from llmagentos.fleet.node.insist import passing
from llmagentos.fleet.node.keys import Counter, Credential
from llmagentos.fleet.node.state import Identity, NodeDirectory

LOOK_S = 60.0
"""How often the certificate's age is looked at."""
_log = log.get(__name__)


class Session(ApiClient):
    """Calls `server` as the node `who`, whose state is in `directory`.

    Beside what the calls themselves raise: `Cloned` while another machine is the node, `Superseded` or
    `NodeRevoked` once this one is no more.
    """

    def __init__(self, directory: NodeDirectory, who: Identity, server: str, ca: Path | None) -> None:
        self._directory = directory
        self._who = who
        self._ca = ca
        self._credential = Credential(directory.credential)
        self._counter = Counter(directory.counter)
        self._place = keys.place(directory.root)
        self._skew = 0.0
        self._until = 0.0
        self._lock = asyncio.Lock()
        self._retired: list[HttpClient] = []
        super().__init__(server, "", tls=self._tls_context())

    async def aclose(self) -> None:
        """Close the connections."""
        for http in self._retired:
            await http.aclose()
        await super().aclose()

    def unseal(self, box: str, purpose: str) -> bytes:
        """What was sealed to this node for `purpose`. Raises `CannotOpen`."""
        return self._credential.unseal(box, purpose)

    async def keep(self) -> None:
        """Renew the certificate at half of its life, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if self._credential.due(time.time() + self._skew):
                    await self.renew()
            except (LLMAgentOSError, msgspec.DecodeError, OSError) as error:
                if not isinstance(error, OSError) and not passing(error):
                    raise
                _log.warning("the certificate is not renewed yet", error=str(error))

    async def renew(self) -> None:
        """A new key and a certificate for it; from now on they are used. Raises `OSError` for a full disk."""
        key = keys.generate()
        certificate = await nodes.renew_certificate(self, keys.request(key, self._who.name))
        await asyncio.to_thread(write_whole, self._directory.credential, keys.pem(key, certificate))
        self._credential = Credential(self._directory.credential)
        if self.tls is not None:
            # Connections of the old certificate end with what they carry; the next ones show the new one.
            self._retired.append(self._http)
            self.tls = self._tls_context()
            self._http = HttpClient(tls=self.tls)
        self._until = 0.0
        metrics.NODE_CERTIFICATES.inc()
        _log.info("certificate renewed", expires=self._credential.expires.isoformat())

    def _tls_context(self) -> ssl.SSLContext | None:
        if not self._who.server.startswith("https:"):
            return None
        context = Credentials(self._who.server, "", self._ca).tls() or ssl.create_default_context()
        context.load_cert_chain(self._credential.path)
        return context

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        timeout: float | None,
        content_type: str = "application/json",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        used = await self._ready("")
        try:
            return await super()._send(method, path, body, timeout, content_type, headers=headers)
        except Unauthenticated:  # the token ended early: the server lost it, or somebody took it back
            await self._ready(used)
        return await super()._send(method, path, body, timeout, content_type, headers=headers)

    async def _ready(self, refused: str) -> str:
        """Have a token, another one than `refused`; it."""
        async with self._lock:
            now = time.monotonic()
            if now >= self._until or self._authorization["Authorization"] == refused:
                made = await self._exchange()
                self._authorization = {"Authorization": f"Bearer {made.token}"}
                self._until = now + made.expires_in / 2
            return self._authorization["Authorization"]

    async def _exchange(self) -> NodeToken:
        if self._credential.left(time.time() + self._skew).total_seconds() < 0:
            raise NodeRevoked(f"the certificate of node {self._who.name!r} has expired", hint="join again")
        try:
            return await self._ask()
        except Unauthenticated as error:
            told = error.details.get("time")
            if not isinstance(told, int | float):
                raise
            self._skew = told - time.time()
            _log.warning("this machine's clock is off", seconds=round(-self._skew, 1))
        return await self._ask()

    async def _ask(self) -> NodeToken:
        try:
            counter = await asyncio.to_thread(self._counter.next)
        except OSError as error:  # a full disk is no reason to end: there will be room again
            raise unusable(self._directory.root, error) from None
        now = time.time() + self._skew
        assertion = self._credential.assertion(self._who.name, counter=counter, place=self._place, now=now)
        async with ApiClient(self.server, assertion, tls=self.tls) as client:
            made = await nodes.exchange(client)
        metrics.NODE_TOKENS.inc()
        return made

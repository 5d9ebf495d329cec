"""One MCP server as our agents use it: connected to when needed, again when the connection was lost, its tools kept.

States: idle --use--> connecting --agreed--> ready --lost--> idle; connecting --error--> failed, which is left by a
use that comes after the pause of the backoff, or waits for its end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from llmagentos.agents.mcp.listing import Listing, checked
from llmagentos.agents.strangers import plain_text
from llmagentos.api.mcp import McpServerInfo, McpState
from llmagentos.core import log
from llmagentos.core.clock import Clock
from llmagentos.core.config.outside import McpServer
from llmagentos.core.errors import LLMAgentOSError, Unavailable
from llmagentos.core.lifecycle import Backoff

FRESH_S = 60.0
"""A listing of tools is asked for again after so long, also of servers that do not tell of changes."""
PAUSE_S = 2.0
"""The longest pause that a use of the server waits for."""
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
"""What a program sees of our environment."""

_log = log.get(__name__)


class Session(Protocol):
    """A connected server, as `session.Session` is."""

    ended: asyncio.Event
    changed: asyncio.Event

    @property
    def agreed(self) -> tuple[str, str | None]: ...
    async def tools(self, timeout: float) -> list[Mapping[str, Any]]: ...
    async def call(self, tool: str, arguments: Mapping[str, Any], timeout: float) -> Any: ...


Open = Callable[[str, McpServer, Mapping[str, str], str], AbstractAsyncContextManager[Session]]
"""`open(name, spec, environment, workdir)`; what it raises tells why there is no connection."""


class Connection:
    """The MCP server `name`; `workdir` is where its program runs when `spec` names no other place."""

    def __init__(
        self, name: str, spec: McpServer, source: Literal["config", "api"], *, workdir: Path, clock: Clock, open_: Open
    ) -> None:
        self.name = name
        self.spec = spec
        self.source = source
        self._workdir = workdir
        self._clock = clock
        self._open = open_
        self._backoff = Backoff(first=0.5, most=60.0, healthy=60.0)
        self._not_before = 0.0
        self._task: asyncio.Task[None] | None = None
        self._session: asyncio.Future[Session] | None = None
        self._listing: Listing | None = None
        self._listed = 0.0
        self._listing_lock = asyncio.Lock()
        self._error: str | None = None
        self._since: float | None = None
        self._connections = 0
        self._retired = False

    async def tools(self) -> Listing:
        """Its tools: as remembered, unless it told of a change or a minute has passed. Raises `Unavailable`."""
        async with self._listing_lock:
            session = await self._ready()
            known = self._listing
            if known is not None and not session.changed.is_set() and self._clock.monotonic() - self._listed < FRESH_S:
                return known
            session.changed.clear()
            try:
                self._listing = checked(await session.tools(self.spec.connect_s))
            except BaseException:  # what is known may be old, for all that was learnt
                session.changed.set()
                raise
            self._listed = self._clock.monotonic()
            if self._listing.refused:
                _log.warning("tools of an MCP server are not used", server=self.name, refused=self._listing.refused)
            return self._listing

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        """What `tool` returns. Raises `McpToolFailed`, `InvalidInput`, `Unavailable` or `DeadlineExceeded`."""
        session = await self._ready()
        return await session.call(tool, arguments, min(timeout, self.spec.timeout_s))

    async def retire(self) -> None:
        """End the connection for good: a run that still knows its tools does not bring the server back."""
        self._retired = True
        await self.close()

    async def close(self) -> None:
        """End the connection, and the program when there is one."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def info(self) -> McpServerInfo:
        """How it is now."""
        session = self._live()
        version, server = session.agreed if session is not None else (None, None)
        return McpServerInfo(
            self.name,
            "stdio" if self.spec.command else "http",
            _target(self.spec),
            self.source,
            self._state(),
            version,
            server,
            self._since if session is not None else None,
            self._connections,
            self._listing.tools if self._listing else [],
            self._listing.refused if self._listing else [],
            self._error,
        )

    def _state(self) -> McpState:
        if self._live() is not None:
            return "ready"
        if self._session is not None and not self._session.done():
            return "connecting"
        return "failed" if self._error is not None else "idle"

    def _live(self) -> Session | None:
        future = self._session
        if future is None or not future.done() or future.cancelled() or future.exception() is not None:
            return None
        session = future.result()
        return None if session.ended.is_set() else session

    async def _ready(self) -> Session:
        """Connected; who comes while somebody else is about it waits for the same connection."""
        await self._pause()
        if self._retired:
            raise Unavailable(
                f"the MCP server {self.name!r} was changed, deleted, or ends with us",
                hint=f"`llmctl mcp {self.name}` says what it is now",
            )
        if (session := self._live()) is not None:
            return session
        if self._session is None or self._session.done():
            self._session = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._keep(self._session, self._task))
        try:
            async with asyncio.timeout(self.spec.connect_s):
                return await asyncio.shield(self._session)
        except TimeoutError:
            self._error = f"no answer within {self.spec.connect_s:g} s"
            await self.close()
            raise self._unavailable() from None

    async def _pause(self) -> None:
        """Wait until a connection may be made again after one ended. Raises `Unavailable` when that is long."""
        under_way = self._session is not None and not self._session.done()
        left = self._not_before - self._clock.monotonic()
        if left <= 0 or under_way or self._live() is not None:
            return
        if left > PAUSE_S:
            raise self._unavailable(f"tried again in {left:.1f} s")
        await asyncio.sleep(left)

    async def _keep(self, future: asyncio.Future[Session], before: asyncio.Task[None] | None) -> None:
        """Connected until the server goes or we do. One task from beginning to end, as the package wants it."""
        begun = self._clock.monotonic()
        try:
            if before is not None:  # what was lost may still be winding down
                await asyncio.wait({before})
            self._workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
            environment = self.spec.environment({k: os.environ[k] for k in _INHERITED if k in os.environ})
            workdir = self.spec.workdir or str(self._workdir)
            async with self._open(self.name, self.spec, environment, workdir) as session:
                self._listing, self._error = None, None
                self._since, self._connections = self._clock.time(), self._connections + 1
                if not future.done():
                    future.set_result(session)
                _log.info("MCP server connected", server=self.name, version=session.agreed[0])
                try:
                    await session.ended.wait()
                finally:
                    session.ended.set()  # also when it is us who go
            _log.warning("MCP server gone", server=self.name)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a supervising task: whatever a foreign server makes of a connection
            self._error = _told(error)
            _log.warning("no connection to an MCP server", server=self.name, error=self._error)
        finally:
            self._not_before = self._clock.monotonic() + self._backoff.died(self._clock.monotonic() - begun)
            if not future.done():
                future.set_exception(self._unavailable())
                future.exception()  # nobody may be waiting any more

    def _unavailable(self, more: str = "") -> Unavailable:
        told = "; ".join(part for part in (self._error or "its connection ended", more) if part)
        return Unavailable(
            f"the MCP server {self.name!r} is not there: {told}", hint=f"`llmctl mcp {self.name}` says more"
        )


def _target(spec: McpServer) -> str:
    """What is shown: never a query, which may hold a secret, nor arguments, which may as well."""
    if spec.url is None:
        return spec.command[0]
    parts = urlsplit(spec.url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, LLMAgentOSError):
        return error.message
    return plain_text(f"{type(error).__name__}: {error}", 500)


def same(one: McpServer, other: McpServer) -> bool:
    """Whether both would be connected to in the same way."""
    return msgspec.json.encode(one) == msgspec.json.encode(other)

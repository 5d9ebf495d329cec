"""A small pooled HTTP/1.1 client on asyncio and httptools (RFC 9112), over TCP, TLS or a Unix socket.

Written because the client library is where most of the time of a small call goes (see
docs/decisions/0002-http-client.md). One `HttpClient` belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from llmagentos.core import trust
from llmagentos.core.errors import DeadlineExceeded, TooLarge, Unavailable

MAX_BODY = 64 * 1024 * 1024
_IDLE_S = 55.0


class ConnectFailed(Unavailable):
    """No connection could be made: the request was certainly not processed."""

    code = "connect_failed"


class ConnectionLost(Unavailable):
    """The connection ended before a whole response: the request may have been processed."""

    code = "connection_lost"


class Response(NamedTuple):
    """A whole response. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads: `http://host:port`, `https://host:port` or `unix:/path/to.sock`."""

    host: str
    port: int
    tls: bool
    unix: str | None = None

    @classmethod
    @lru_cache(maxsize=1024)
    def of(cls, origin: str) -> Target:
        """The target of an origin. Raises `ValueError` for another scheme."""
        if origin.startswith("unix:"):
            return cls("localhost", 0, False, origin.removeprefix("unix:"))
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{origin!r} is not an http:, https: or unix: address")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls)


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, max_body: int) -> None:
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self.complete = True
        self.status = 0
        self.headers: dict[str, str] = {}
        self._max_body = max_body
        self._parser = httptools.HttpResponseParser(self)
        self._loop = asyncio.get_running_loop()
        self._lost = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._keep_alive = True
        self._streaming = False
        self._begin()

    def _begin(self) -> None:
        self.headers = {}
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._head_done = False
        self._until_close = False

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one without being a subclass

    def data_received(self, data: bytes) -> None:
        if self.complete:  # nothing was asked: whatever this is, it must not become the next answer
            self._fail(ConnectionLost("unexpected data on an idle connection"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__  # what one of the callbacks below raised
            self._fail(cause if isinstance(cause, TooLarge) else ConnectionLost(f"malformed HTTP response: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._head_done and self._until_close and not self.complete:
            self.complete = True  # RFC 9112 section 6.3: body delimited by the end of the connection
            self._wake()
        elif not self.complete:
            self._fail(ConnectionLost(f"the connection ended before the response did{f': {exc}' if exc else ''}"))

    # httptools callbacks
    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:  # RFC 9110 section 15.2: interim, the answer follows
            return
        self._keep_alive = self._parser.should_keep_alive()
        self._until_close = "content-length" not in self.headers and "transfer-encoding" not in self.headers
        self._head_done = True
        if self._bodiless:
            # RFC 9112 section 6.3: its Content-Length is that of a GET; the parser would wait for the body.
            self.complete, self._keep_alive = True, False
        if self._streaming or self._bodiless:
            self._wake()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if not self._streaming and self._size > self._max_body:
            raise TooLarge(f"the response is over {self._max_body} bytes")
        self._chunks.append(body)
        if self._streaming:
            if len(self._chunks) > 256 and self.transport is not None:
                self.transport.pause_reading()
            self._wake()

    def on_message_complete(self) -> None:
        if self.status < 200:
            self._begin()
            return
        self.complete = True
        self._wake()

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        if self.transport is not None:
            self.transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, timeout: float | None = None) -> None:
        self._waiter = self._loop.create_future()
        expiry = None if timeout is None else self._loop.call_later(timeout, self._silent, timeout)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if expiry is not None:
                expiry.cancel()

    def _silent(self, seconds: float) -> None:
        self._fail(ConnectionLost(f"nothing was heard for {seconds} s"))

    def _expired(self, request: bytes, timeout: float) -> None:
        asked = request.partition(b" HTTP/")[0].decode("latin-1")
        self._fail(DeadlineExceeded(f"{asked}: no answer within {timeout:g} s"))

    # the client's side
    @property
    def usable(self) -> bool:
        return not self._lost and self.transport is not None and not self.transport.is_closing()

    @property
    def reusable(self) -> bool:
        if not self.usable or self.transport is None or not self.transport.is_reading():
            return False
        return self.complete and self._keep_alive and self._error is None

    def send(self, request: bytes, *, streaming: bool, begun: float, timeout: float | None) -> None:
        self._begin()
        self.complete = False
        self._streaming = streaming
        self._bodiless = request.startswith(b"HEAD ")
        assert self.transport is not None
        if timeout is not None:
            self._expiry = self._loop.call_at(begun + timeout, self._expired, request[:200], timeout)
        self.transport.write(request)

    def settle(self) -> None:
        """The deadline no longer counts."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    async def head(self) -> None:
        while not self._head_done and self._error is None:
            await self._wait()
        self.settle()
        if self._error is not None:
            raise self._error

    async def body(self) -> bytes:
        while not self.complete and self._error is None:
            await self._wait()
        if self._error is not None:
            raise self._error
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    async def chunks(self, idle_timeout: float | None) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                yield self._chunks.popleft()
            if self._error is not None:
                raise self._error
            # Also at the end: the connection may be kept for the next request.
            if self.transport is not None and not self.transport.is_reading() and not self._lost:
                self.transport.resume_reading()
            if self.complete:
                return
            await self._wait(idle_timeout)


class StreamResponse:
    """A response whose body is read as it comes."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    def iter_bytes(self, *, idle_timeout: float | None = None) -> AsyncIterator[bytes]:
        """The body in pieces as they arrive. Raises `ConnectionLost` after `idle_timeout` seconds of silence."""
        return self._connection.chunks(idle_timeout)

    async def iter_lines(self, *, idle_timeout: float | None = None) -> AsyncIterator[str]:
        """The body line by line, without line ends. Raises as `iter_bytes`; `TooLarge` over `MAX_BODY`."""
        rest = b""
        async for chunk in self.iter_bytes(idle_timeout=idle_timeout):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.rstrip(b"\r").decode("utf-8")
            if len(rest) > MAX_BODY:
                raise TooLarge(f"a line is over {MAX_BODY} bytes")
        if rest:
            yield rest.decode("utf-8")

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self.iter_bytes()])


class HttpClient:
    """Requests over kept-alive connections, `max_idle` of them per target.

    Raises `ConnectFailed` (never sent), `ConnectionLost` (may have been processed),
    `DeadlineExceeded` after `timeout` seconds, `TooLarge` for a response over `max_body` bytes.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        max_idle: int = 128,
        max_body: int = MAX_BODY,
        connect_timeout: float = 5.0,
    ) -> None:
        self._tls = tls
        self._max_idle = max_idle
        self._max_body = max_body
        self._connect_timeout = connect_timeout
        self._idle: dict[Target, deque[_Connection]] = {}
        self._closed = False

    async def request(
        self,
        method: str,
        origin: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float | None = 30.0,
    ) -> Response:
        """One request and its whole response; `origin` as in `Target`, `path` with its query."""
        target = Target.of(origin)
        return await self.exchange(target, _head(method, target, path, headers, body), timeout)

    async def exchange(self, target: Target, request: bytes, timeout: float | None) -> Response:
        """Send one whole request, as bytes, and read the whole response: what `request` does, for who has the bytes."""
        begun = asyncio.get_running_loop().time()
        connection = self._idle_connection(target) or await self._connect(target, timeout)
        keep = False
        try:
            connection.send(request, streaming=False, begun=begun, timeout=timeout)
            content = await connection.body()
            keep = True
        finally:
            self._release(target, connection, keep=keep)
        return Response(connection.status, connection.headers, content)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        origin: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float | None = 30.0,
    ) -> AsyncIterator[StreamResponse]:
        """A request whose body is read as it comes; `timeout` bounds only the wait for the head.

        Leaving the block early closes the connection, which tells the other side to stop.
        """
        target = Target.of(origin)
        async with self.exchange_stream(target, _head(method, target, path, headers, body), timeout) as response:
            yield response

    @asynccontextmanager
    async def exchange_stream(
        self, target: Target, request: bytes, timeout: float | None
    ) -> AsyncIterator[StreamResponse]:
        """Send one whole request, as bytes, and read the response as it comes: see `stream`."""
        begun = asyncio.get_running_loop().time()
        connection = self._idle_connection(target) or await self._connect(target, timeout)
        try:
            connection.send(request, streaming=True, begun=begun, timeout=timeout)
            await connection.head()
            yield StreamResponse(connection)
        finally:
            self._release(target, connection, keep=connection.complete)

    async def aclose(self) -> None:
        """Close all idle connections; further requests open and close their own."""
        self._closed = True
        for connections in self._idle.values():
            for connection in connections:
                if connection.transport is not None:
                    connection.transport.abort()  # nothing is under way; TLS would wait for the other side's goodbye
        self._idle.clear()
        await asyncio.sleep(0)

    def _idle_connection(self, target: Target) -> _Connection | None:
        idle = self._idle.get(target)
        while idle:
            connection = idle.pop()
            if connection.usable and asyncio.get_running_loop().time() - connection.idle_since < _IDLE_S:
                return connection
            if connection.transport is not None:
                connection.transport.abort()
        return None

    async def _connect(self, target: Target, timeout: float | None) -> _Connection:
        loop = asyncio.get_running_loop()
        factory = lambda: _Connection(self._max_body)  # noqa: E731
        where = target.unix or f"{target.host}:{target.port}"
        limit = self._connect_timeout if timeout is None else min(timeout, self._connect_timeout)
        try:
            async with asyncio.timeout(limit):
                if target.unix is not None:
                    _, connection = await loop.create_unix_connection(factory, target.unix)
                else:
                    context = (self._tls or trust.context()) if target.tls else None
                    _, connection = await loop.create_connection(factory, target.host, target.port, ssl=context)
        except TimeoutError:
            raise ConnectFailed(f"cannot connect to {where} within {limit} s") from None
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {where}: {error.strerror or error}") from None
        return connection

    def _release(self, target: Target, connection: _Connection, *, keep: bool) -> None:
        connection.settle()
        if keep and connection.reusable and not self._closed:
            idle = self._idle.get(target)
            if idle is None:
                idle = self._idle[target] = deque()
            if len(idle) < self._max_idle:
                connection.idle_since = asyncio.get_running_loop().time()
                idle.append(connection)
                return
        if connection.transport is not None:
            connection.transport.abort()


def _head(method: str, target: Target, path: str, headers: Mapping[str, str] | None, body: bytes | None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n"]
    for name, value in (headers or {}).items():
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"header {name} holds a line break")
        lines.append(f"{name}: {value}\r\n")
    if body is not None or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body or b'')}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1") + (body or b"")

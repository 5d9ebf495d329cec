"""One connection of a caller: requests in, answers out, one at a time.

HTTP/1.1 (RFC 9112) with kept-alive connections, bodies by length or chunked, answers whole or as a
chunked stream. Pipelined requests are not answered: the connection closes after the first (section
9.3.2 has the caller send the others again). Sizes and times are bounded by `Limits`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast

import httptools

from llmagentos.api import problem
from llmagentos.core.errors import DeadlineExceeded, InvalidInput, LLMAgentOSError, TooLarge
from llmagentos.services.rpc.limits import Limits

LINGER_S = 2.0
"""After a refusal that closes the connection, what still arrives is read and dropped for this long: closing at
once would reset the connection and the caller might never see the answer."""
_SMALL = 64 * 1024
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class HeadTooLarge(TooLarge):
    """Request line and headers are over the limit."""

    code = "head_too_large"
    status = 431


class SlowRequest(DeadlineExceeded):
    """The request did not arrive in time."""

    code = "slow_request"
    status = 408


@dataclass(slots=True)
class Request:
    """One request. Header names are lower case; `accepted` is whatever the acceptor gave for it."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    body: bytes = b""
    accepted: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `headers` are further lines, each ended by CRLF."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: bytes = b""


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """An answer that is sent piece by piece."""

    pieces: AsyncIterator[bytes]
    content_type: bytes = b"application/x-ndjson"


class Application(Protocol):
    """What answers requests."""

    def accept(self, request: Request) -> Any:
        """Look at a request's head, before its body is read; raises what refuses it."""
        ...

    def answer(self, request: Request) -> Coroutine[Any, Any, Answer | StreamAnswer]:
        """Answer an accepted request. Must not raise but `CancelledError`."""
        ...

    def refuse(self, request: Request | None, error: LLMAgentOSError) -> Answer:
        """The answer to a request that was not accepted, or that is no request at all (None)."""
        ...


class Connections:
    """The open connections of one listener, and the watch over slow and idle ones."""

    def __init__(self, application: Application, limits: Limits, *, on_change: Callable[[int], None]) -> None:
        self.application = application
        self.limits = limits
        self.closing = False
        self._open: set[Connection] = set()
        self._on_change = on_change
        self._asked = 0.0  # when the last request began
        self._free = asyncio.Event()
        self._free.set()

    def __call__(self) -> Connection:
        return Connection(self)

    def opened(self, connection: Connection) -> bool:
        """Whether there is room for one more."""
        if len(self._open) >= self.limits.connections:
            return False
        self._open.add(connection)
        self._on_change(len(self._open))
        return True

    def closed(self, connection: Connection) -> None:
        """One went away."""
        self._open.discard(connection)
        self._on_change(len(self._open))
        self.looked()

    def asked(self, now: float) -> None:
        """A request came."""
        self._asked = now

    async def quiet(self, seconds: float, *, within: float) -> None:
        """Wait until no request has come for so many `seconds`, and for `within` seconds at most."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            rest = min(max(begun, self._asked) + seconds, begun + within) - loop.time()
            if rest <= 0:
                return
            await asyncio.sleep(rest)

    def looked(self) -> None:
        """A request was answered or a connection closed: perhaps nothing is left to wait for."""
        if self.closing and not any(connection.busy for connection in self._open):
            self._free.set()

    async def watch(self) -> None:
        """Close what is too slow or idle too long, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            now = loop.time()
            for connection in list(self._open):
                connection.look(now)

    async def finish(self, grace: float) -> None:
        """Let running requests end, for `grace` seconds; then close everything."""
        self.closing = True
        self._free.clear()
        self.looked()
        with suppress(TimeoutError):  # what has not ended by then is cut off
            async with asyncio.timeout(grace):
                await self._free.wait()
        for connection in list(self._open):
            connection.close()
        await asyncio.sleep(0)


class Connection(asyncio.Protocol):
    """One caller's connection."""

    def __init__(self, owner: Connections) -> None:
        self._owner = owner
        self._application = owner.application
        self._limits = owner.limits
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._paused_at: float | None = None
        self._began: float | None = None  # when the first byte of an unfinished request came
        self._idle_since = self._loop.time()
        self._lingering: float | None = None
        self._last = False  # close after the answer in work
        self._head_bytes = 0
        self._request: Request | None = None
        self._refused: LLMAgentOSError | None = None
        self._new_message()

    def _new_message(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._size = 0
        self._head_size = 0
        self._head_done = False
        self._complete = False
        self._refused = None
        self._request = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._task is not None

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but ancestry
        if not self._owner.opened(self):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self._wake()
        self._owner.closed(self)

    def eof_received(self) -> bool:
        return False  # a caller that can no longer send has hung up

    def pause_writing(self) -> None:
        self._paused_at = self._loop.time()

    def resume_writing(self) -> None:
        self._paused_at = None
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            return
        if self._task is not None:  # pipelined: see the module's text
            self._last = True
            self._transport.pause_reading()
            return
        if self._began is None:
            self._began = self._loop.time()
            self._owner.asked(self._began)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._reject(InvalidInput("this connection speaks HTTP/1.1 only"))
        except httptools.HttpParserError as error:
            cause = error.__context__  # what one of the callbacks below raised
            if self._complete:  # what follows a whole request is not looked at: see the module's text
                self._last = True
                self._start()
            else:
                self._reject(cause if isinstance(cause, LLMAgentOSError) else InvalidInput(f"malformed HTTP: {error}"))
        else:
            self._fed(len(data))

    def _fed(self, size: int) -> None:
        if self._complete:
            self._start()
        elif not self._head_done:
            self._head_bytes += size
            if self._head_bytes > self._limits.head:
                self._reject(_head_too_large(self._limits))

    # httptools callbacks
    def on_message_begin(self) -> None:
        if self._complete:
            raise InvalidInput("pipelined requests are not answered")

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return  # a trailer
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self._limits.head:
            raise _head_too_large(self._limits)
        name = name.lower()
        if name in self._headers and name in _SINGLE:
            raise InvalidInput(f"the header {name.decode('latin-1')} occurs twice")
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._head_done = True
        self._head_bytes = 0
        if self._head_size > self._limits.head:
            raise _head_too_large(self._limits)
        headers = self._headers
        request = self._request = Request(self._parser.get_method(), self._url, headers)
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise InvalidInput(f"HTTP/{version} is not spoken here")
        if version == "1.1" and b"host" not in headers:
            raise InvalidInput("HTTP/1.1 needs a Host header")
        length = int(headers.get(b"content-length", b"0"))
        if length > self._limits.body:
            raise _body_too_large(self._limits)
        try:
            request.accepted = self._application.accept(request)
        except LLMAgentOSError as error:
            if length > _SMALL or b"transfer-encoding" in headers:
                raise
            self._refused = error  # its small body is read and dropped, the connection stays
            return
        if headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._limits.body:
            raise _body_too_large(self._limits)
        if self._refused is None:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._complete = True

    # answering
    def _start(self) -> None:
        self._began = None
        request, refused = self._request, self._refused
        assert request is not None
        pieces = self._pieces
        request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        keep = self._parser.should_keep_alive() and not self._last
        if refused is not None:
            self._send(self._application.refuse(request, refused), keep=keep)
            self._done(keep)
            return
        self._task = self._loop.create_task(self._answer(request, keep))

    async def _answer(self, request: Request, keep: bool) -> None:
        ended = False
        try:
            answer = await self._application.answer(request)
            keep = keep and not self._last and not self._owner.closing
            if isinstance(answer, StreamAnswer):
                keep = await self._stream(answer, keep)
            else:
                self._send(answer, keep=keep)
            ended = True
        finally:
            self._task = None
            self._done(keep and ended)

    def _done(self, keep: bool) -> None:
        if keep and not self._owner.closing:
            self._idle_since = self._loop.time()
            self._new_message()
        else:
            self._transport.close()
        if self._owner.closing:
            self._owner.looked()

    def _send(self, answer: Answer, *, keep: bool) -> None:
        body = answer.body
        status = b"200 OK" if answer.status == 200 else _status_line(answer.status)
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n%b"
            % (status, answer.content_type, len(body), answer.headers, b"" if keep else b"Connection: close\r\n", body)
        )

    async def _stream(self, answer: StreamAnswer, keep: bool) -> bool:
        chunked = self._parser.get_http_version() == "1.1"
        keep = keep and chunked
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nCache-Control: no-store\r\n%b%b\r\n"
            % (answer.content_type, framing, b"" if keep else b"Connection: close\r\n")
        )
        async for piece in answer.pieces:
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await self._drained()
        if chunked:
            self._transport.write(b"0\r\n\r\n")
        return keep

    async def _drained(self) -> None:
        while self._paused_at is not None and not self._transport.is_closing():
            self._writable = self._loop.create_future()
            await self._writable

    def _wake(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _reject(self, error: LLMAgentOSError) -> None:
        """Refuse what cannot be read further, and close."""
        if self._transport.is_closing():
            return
        self._send(self._application.refuse(self._request, error), keep=False)
        self._began = None
        self._lingering = self._loop.time() + LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()

    # the watch
    def look(self, now: float) -> None:
        """Close when something takes too long at the time `now`."""
        limits = self._limits
        if self._lingering is not None:
            if now >= self._lingering:
                self._transport.close()
        elif self._paused_at is not None and now - self._paused_at > limits.send_s:
            self._transport.abort()
        elif self._task is not None:
            return
        elif self._began is not None:
            if now - self._began > limits.receive_s:
                self._reject(SlowRequest(f"the request did not arrive within {limits.receive_s:g} s"))
        elif now - self._idle_since > limits.idle_s or self._owner.closing:
            self._transport.close()

    def close(self) -> None:
        """Close now, whatever runs."""
        self._transport.close()


_SINGLE = frozenset({b"authorization", b"content-length", b"host", b"x-llmagentos-timeout", b"x-llmagentos-run"})


def _status_line(status: int) -> bytes:
    return f"{status} {_REASONS.get(status, 'Error')}".encode()


def _head_too_large(limits: Limits) -> HeadTooLarge:
    return HeadTooLarge(f"request line and headers are over {limits.head} bytes")


def _body_too_large(limits: Limits) -> TooLarge:
    return TooLarge(f"the request body is over {limits.body} bytes", hint="Module(limits=Limits(body=...))")


def problem_answer(error: LLMAgentOSError, headers: bytes = b"") -> Answer:
    """`error` as a problem document."""
    return Answer(error.status, problem.encode(error), problem.CONTENT_TYPE.encode(), headers)

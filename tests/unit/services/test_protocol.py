"""The connection's protocol on a transport of our own: whole answers or a clean refusal for any bytes."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmagentos.core.errors import Unauthenticated
from llmagentos.services.rpc.http import Answer, Connections, Request, StreamAnswer, problem_answer
from llmagentos.services.rpc.limits import Limits

LIMITS = Limits(head=2000, body=100_000, connections=3)


class Wire(asyncio.Transport):
    """The transport seam: keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.paused = False
        self.ended = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.paused = True


class Echo:
    """Answers with what it got; refuses without a token; can be held."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.hold: asyncio.Event | None = None
        self.cancelled = 0

    def accept(self, request: Request) -> None:
        if request.headers.get(b"authorization") != b"Bearer t":
            raise Unauthenticated("who are you?")

    async def answer(self, request: Request) -> Answer | StreamAnswer:
        self.seen.append(request)
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if request.path == b"/stream":
            return StreamAnswer(self._pieces())
        return Answer(200, request.body)

    async def _pieces(self) -> Any:
        for number in range(3):
            yield b"%d\n" % number

    def refuse(self, request: Request | None, error: Any) -> Answer:
        return problem_answer(error)


class Responses:
    """What a caller reads."""

    def __init__(self, written: bytes) -> None:
        self.all: list[tuple[int, bytes]] = []
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(written)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.all.append((self._parser.get_status_code(), self._body))
        self._body = b""


def request(
    body: bytes = b"", *, path: str = "/a", extra: str = "", token: str = "Bearer t", chunked: bool = False
) -> bytes:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n{framing}\r\n{extra}\r\n"
    return head.encode() + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body)


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


class Line:
    """One connection and its other end."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.echo = Echo()
        self.owner = Connections(self.echo, limits, on_change=lambda _: None)
        self.wire, self.connection = self.connect()

    def connect(self) -> tuple[Wire, Any]:
        wire, connection = Wire(), self.owner()
        connection.connection_made(wire)
        return wire, connection

    async def feed(self, *pieces: bytes) -> list[tuple[int, bytes]]:
        for piece in pieces:
            if not self.wire.closed:
                self.connection.data_received(piece)
            await settle()
        return Responses(self.wire.written).all


def run(test: Callable[[Line], Coroutine[Any, Any, None]], limits: Limits = LIMITS) -> None:
    async def main() -> None:
        line = Line(limits)
        await test(line)
        line.wire.closed = True
        line.connection.connection_lost(None)
        await settle()

    asyncio.run(main())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


PLACES = st.lists(st.integers(0, 10_000), max_size=8)


@given(st.binary(max_size=300), st.booleans(), PLACES)
def test_a_request_split_anywhere_is_one_request(body: bytes, chunked: bool, places: list[int]) -> None:
    async def check(line: Line) -> None:
        for number in range(2):
            got = await line.feed(*cut(request(body, chunked=chunked and body != b""), places))
            assert got == [(200, body)] * (number + 1)
        assert not line.wire.closed

    run(check)


def mutated(data: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    for place, what in edits:
        place %= len(data) + 1
        data = data[:place] + what + data[place + len(what) % 3 :]
    return data


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        st.binary(max_size=500),
        st.builds(
            mutated,
            st.sampled_from(
                [request(b"abc"), request(b"abc", chunked=True), request(b"a", path="/stream"), request() + request()]
            ),
            st.lists(st.tuples(st.integers(0, 500), st.binary(max_size=6)), max_size=5),
        ),
        st.text("\r\n: GETPOSHTP/1.0aé", max_size=300).map(lambda text: text.encode("latin-1")),
    ),
    PLACES,
)
def test_whatever_comes_gets_whole_answers_or_none(data: bytes, places: list[int]) -> None:
    async def check(line: Line) -> None:
        got = await line.feed(*cut(data, places))
        assert all(status in (200, 400, 401, 408, 413, 431) for status, _ in got)
        for status, body in got:
            if status != 200:
                assert json.loads(body)["status"] == status
        assert len(line.echo.seen) <= len(got) <= 3
        line.connection.look(asyncio.get_running_loop().time() + 100)
        line.connection.look(asyncio.get_running_loop().time() + 200)
        assert line.wire.closed, "nothing holds a connection for ever"

    run(check)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),  # TLS on a plain port
        (request(extra="Authorization: Bearer t\r\n"), 400),
        (request(extra="Content-Length: 0\r\n"), 400),
        (request(extra="Transfer-Encoding: chunked\r\n"), 400),
        (request(extra="Upgrade: websocket\r\nConnection: upgrade\r\n"), 400),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n", 400),
        (request(extra=f"X: {'a' * 3000}\r\n"), 431),
        (b"GET /" + b"a" * 3000, 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Length: 100001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99000\r\n\r\n", 401),
        (request(b"a" * 100_001, chunked=True), 413),
    ],
)
def test_refused_and_closed(data: bytes, status: int) -> None:
    async def check(line: Line) -> None:
        got = await line.feed(*cut(data, [700, 1500, 2500, 50_000]))
        assert [each[0] for each in got] == [status]
        assert line.wire.ended
        assert line.echo.seen == []
        await line.feed(b"whatever still comes")
        line.connection.look(asyncio.get_running_loop().time() + 3)
        assert line.wire.closed

    run(check)


def test_a_small_refused_request_keeps_the_connection() -> None:
    async def check(line: Line) -> None:
        got = await line.feed(request(b"body", token="none"), request(b"again"))
        assert [status for status, _ in got] == [401, 200]

    run(check)


def test_pipelined_requests_are_not_answered() -> None:
    async def check(line: Line) -> None:
        got = await line.feed(request(b"one") + request(b"two"))
        assert got == [(200, b"one")]
        assert b"Connection: close" in line.wire.written
        assert line.wire.closed
        assert len(line.echo.seen) == 1

    run(check)


def test_what_comes_while_a_request_is_answered_ends_the_connection() -> None:
    async def check(line: Line) -> None:
        line.echo.hold = asyncio.Event()
        await line.feed(request(b"one"))
        await line.feed(request(b"two"))
        assert line.wire.paused
        line.echo.hold.set()
        await settle()
        assert Responses(line.wire.written).all == [(200, b"one")]
        assert line.wire.closed

    run(check)


def test_a_caller_that_hangs_up_cancels() -> None:
    async def check(line: Line) -> None:
        line.echo.hold = asyncio.Event()
        await line.feed(request(b"one"))
        line.wire.closed = True
        line.connection.connection_lost(None)
        await settle()
        assert line.echo.cancelled == 1

    run(check)


def test_streams_wait_for_a_slow_reader() -> None:
    async def check(line: Line) -> None:
        line.connection.pause_writing()
        await line.feed(request(path="/stream"))
        assert line.wire.written.endswith(b"\r\n\r\n2\r\n0\n\r\n"), "one piece, then it waits"
        line.connection.look(asyncio.get_running_loop().time() + LIMITS.send_s - 1)
        assert not line.wire.closed
        line.connection.resume_writing()
        await settle()
        assert Responses(line.wire.written).all == [(200, b"0\n1\n2\n")]
        line.connection.pause_writing()
        line.connection.look(asyncio.get_running_loop().time() + LIMITS.send_s + 1)
        assert line.wire.closed

    run(check)


def test_http_1_0_gets_a_stream_without_chunks() -> None:
    async def check(line: Line) -> None:
        await line.feed(b"POST /stream HTTP/1.0\r\nAuthorization: Bearer t\r\nContent-Length: 0\r\n\r\n")
        assert line.wire.written.endswith(b"\r\n\r\n0\n1\n2\n")
        assert line.wire.closed

    run(check)


def test_expect_continue() -> None:
    async def check(line: Line) -> None:
        head, body = request(b"abc", extra="Expect: 100-continue\r\n").split(b"\r\n\r\n")
        await line.feed(head + b"\r\n\r\n")
        assert line.wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
        await line.feed(body)
        assert line.wire.written.endswith(b"abc")

    run(check)


def test_slow_and_idle_connections() -> None:
    async def check(line: Line) -> None:
        loop = asyncio.get_running_loop()
        await line.feed(request(b"abcdef")[:-1])
        line.connection.look(loop.time() + LIMITS.receive_s - 1)
        assert line.wire.written == b""
        line.connection.look(loop.time() + LIMITS.receive_s + 1)
        assert Responses(line.wire.written).all[0][0] == 408
        wire, idle = line.connect()
        idle.look(loop.time() + LIMITS.idle_s - 1)
        assert not wire.closed
        idle.look(loop.time() + LIMITS.idle_s + 1)
        assert wire.closed

    run(check)


def test_connections_are_bounded() -> None:
    async def check(line: Line) -> None:
        wires = [line.connect()[0] for _ in range(3)]
        assert [wire.closed for wire in wires] == [False, False, True]

    run(check)


def test_callers_who_have_not_heard_yet_are_waited_for() -> None:
    """What they send to a connection that is being closed would be lost, and perhaps must not be sent again."""

    async def check(line: Line) -> None:
        loop = asyncio.get_running_loop()
        quiet = asyncio.ensure_future(line.owner.quiet(0.2, within=60))
        await settle()
        time.sleep(0.1)  # nothing else runs meanwhile: the request comes before it wakes up
        asked = loop.time()
        assert await line.feed(request(b"a"))
        await quiet
        assert loop.time() >= asked + 0.2
        await line.owner.quiet(60, within=0.01)

    run(check)


def test_finishing_waits_for_what_runs() -> None:
    async def check(line: Line) -> None:
        line.echo.hold = asyncio.Event()
        await line.feed(request(b"one"))
        finishing = asyncio.ensure_future(line.owner.finish(5.0))
        await settle()
        assert not finishing.done()
        line.echo.hold.set()
        await finishing
        assert Responses(line.wire.written).all == [(200, b"one")]
        assert b"Connection: close" in line.wire.written

    run(check)

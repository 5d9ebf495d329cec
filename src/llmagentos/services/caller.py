"""Calls methods of services by name: finds an instance, sends, and repeats elsewhere where that is safe."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from llmagentos.api import problem
from llmagentos.api.http import ConnectFailed, ConnectionLost, HttpClient, Target
from llmagentos.api.registry import Instance, MethodSpec
from llmagentos.core import metrics, tracing
from llmagentos.core.clock import Clock
from llmagentos.core.errors import DeadlineExceeded, InvalidInput, LLMAgentOSError, ServiceError, Unavailable
from llmagentos.kernel.choice import Peer, choose
from llmagentos.services import context, signature
from llmagentos.services.directory import Directory, method_of
from llmagentos.services.errors import CallInterrupted, no_instance, unknown_method
from llmagentos.services.tokens import ServiceTokens

TIMEOUT_S = 30.0
WAIT_S = 3.0
"""How long a call waits for an instance to come up when none can be reached."""
MOST_REPEATS = 2
"""How often a call whose instance was lost is sent again: it may be the call that kills them."""

_ENCODER = msgspec.json.Encoder(enc_hook=signature.to_json)


@dataclass(slots=True)
class _Peer(Peer):
    instance: Instance | None = None
    target: Target = field(default_factory=lambda: Target("", 0, False))


@dataclass(slots=True)
class _Route:
    """The instances that have one method, as of one version of the directory."""

    version: int
    spec: MethodSpec
    peers: list[_Peer]


@dataclass(slots=True)
class _Call:
    service: str
    method: str
    body: bytes
    timeout: float
    deadline: float
    extra: str
    token: str = ""
    tried: frozenset[str] = frozenset()
    repeats: int = 0
    renewed: bool = False
    error: LLMAgentOSError | None = None

    @property
    def name(self) -> str:
        return f"{self.service}.{self.method}"


class ServiceCaller:
    """Calls services found in `directory`. Belongs to one event loop.

    `ready` waits until the directory knows anything at all; `wait` bounds how long a call waits for an
    instance when there is none, in seconds.
    """

    def __init__(
        self,
        directory: Directory,
        tokens: ServiceTokens,
        http: HttpClient,
        clock: Clock,
        *,
        ready: Callable[[], Awaitable[None]] | None = None,
        wait: float = WAIT_S,
        draw: Callable[[int], int] = random.randrange,
    ) -> None:
        self.directory = directory
        self._tokens = tokens
        self._http = http
        self._clock = clock
        self._ready = ready
        self._wait = wait
        self._draw = draw
        self._peers: dict[str, _Peer] = {}
        self._routes: dict[tuple[str, str], _Route] = {}

    async def call(
        self,
        service: str,
        method: str,
        arguments: Mapping[str, Any],
        *,
        timeout: float | None = None,
        run_id: str | None = None,
        returns: Any = Any,
    ) -> Any:
        """The method's result, converted to `returns`; for a streaming method, the iterator of its items.

        `timeout` (30 s by default) is never longer than what is left of the call that is being answered.
        Raises `ServiceError` for an exception of the method, `BadArguments`, `UnknownMethod`, `NoInstance`,
        `CallInterrupted`, `DeadlineExceeded`, `Overloaded`.
        """
        begun = self._begin(service, method, arguments, timeout, run_id)
        route = self._routes.get((service, method))
        if route is None or route.version != self.directory.version:
            route = await self._route(begun)
        if route.spec.streams:
            return self._items(begun, returns)
        started = time.perf_counter()
        outcome = "ok"
        try:
            if tracing.enabled():
                with tracing.span(begun.name, kind=tracing.CLIENT, rpc__service=service, rpc__method=method):
                    body = await self._exchange(begun)
            else:
                body = await self._exchange(begun)
        except LLMAgentOSError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            _observe(service, method, outcome, started)
        return _decoded(begun, body, returns)

    async def describe(self, service: str, method: str) -> MethodSpec:
        """What the registry knows of a method. Raises `UnknownMethod`, `NoInstance`."""
        return (await self._route(self._begin(service, method, {}, self._wait + 1.0, None))).spec

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _begin(
        self, service: str, method: str, arguments: Mapping[str, Any], timeout: float | None, run_id: str | None
    ) -> _Call:
        try:
            body = _ENCODER.encode(arguments)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"{service}.{method}: {error}") from None
        timeout = TIMEOUT_S if timeout is None else timeout
        deadline = self._clock.monotonic() + timeout
        extra = ""
        outer = context.current()
        if outer is not None:
            if outer.deadline is not None:
                deadline = min(deadline, outer.deadline)
            run_id = run_id or outer.run_id
            if outer.traceparent is not None and not tracing.enabled():
                extra = f"{context.TRACE_HEADER}: {outer.traceparent}\r\n"
        if run_id is not None:
            extra += f"{context.RUN_HEADER}: {_header_value(run_id)}\r\n"
        return _Call(service, method, body, timeout, deadline, extra)

    async def _exchange(self, call: _Call) -> bytes:
        while True:
            peer, left = await self._next(call)
            peer.outstanding += 1
            try:
                response = await self._http.exchange(peer.target, _request(call, peer, left), left)
            except (ConnectFailed, ConnectionLost) as error:
                self._lost(call, peer, error)
                continue
            except DeadlineExceeded:
                raise _too_late(call) from None
            finally:
                peer.outstanding -= 1
            peer.answered()
            if response.status < 300:
                return response.body
            self._refused(call, peer, response.status, response.headers, response.body)

    async def _items(self, call: _Call, returns: Any) -> AsyncIterator[Any]:
        async with aclosing(self._lines(call)) as lines:
            async for line in lines:
                yield _decoded(call, line, returns)

    async def _lines(self, call: _Call) -> AsyncGenerator[bytes, None]:
        """The items of a stream, each as JSON. The timeout bounds the wait for each, not the whole."""
        began = False
        while True:
            peer, left = await self._next(call)
            peer.outstanding += 1
            try:
                async with self._http.exchange_stream(peer.target, _request(call, peer, left), left) as response:
                    peer.answered()
                    if response.status < 300:
                        began = True
                        async for line in response.iter_lines(idle_timeout=call.timeout):
                            item = _item(call, line)
                            if item is None:
                                return
                            yield item
                        raise ConnectionLost("the stream ended without its last line")
                    self._refused(call, peer, response.status, response.headers, await response.read())
            except (ConnectFailed, ConnectionLost) as error:
                if began:
                    raise CallInterrupted(f"{call.name}: the stream broke off: {error.message}") from None
                self._lost(call, peer, error)
            except DeadlineExceeded:
                raise _too_late(call) from None
            finally:
                peer.outstanding -= 1

    async def _next(self, call: _Call) -> tuple[_Peer, float]:
        """The instance to try next, and the seconds that are left. Sets the call's token."""
        while True:
            route = self._routes.get((call.service, call.method))
            if route is None or route.version != self.directory.version:
                route = await self._route(call)
            peers = [peer for peer in route.peers if peer.key not in call.tried] if call.tried else route.peers
            if peers:
                break
            if not isinstance(call.error, ConnectFailed | ConnectionLost) or not await self._changed(call):
                raise self._given_up(call)
        now = self._clock.monotonic()
        peer = choose(peers, now, self._draw)
        call.token = self._tokens.held(call.service) or await self._tokens.get(call.service)
        left = call.deadline - self._clock.monotonic()
        if left <= 0:
            raise _too_late(call)
        return peer, left  # type: ignore[return-value]

    async def _route(self, call: _Call) -> _Route:
        """The instances that have the method, as known now. Raises `NoInstance`, `UnknownMethod`."""
        key = (call.service, call.method)
        if self._ready is not None:
            await self._ready()
        while not (instances := self.directory.offering(call.service)):
            self._routes.pop(key, None)
            if not await self._changed(call):
                raise no_instance(call.service, self.directory.services())
        return self._routed(call, instances)

    def _routed(self, call: _Call, instances: list[Instance]) -> _Route:
        found = [(i, spec) for i in instances if (spec := method_of(i, call.service, call.method)) is not None]
        if not found:
            self._routes.pop((call.service, call.method), None)
            specs = [s for i in instances for s in i.services if s.name == call.service]
            raise unknown_method(call.service, call.method, {m.name for spec in specs for m in spec.methods})
        route = _Route(self.directory.version, found[-1][1], [self._peer(instance) for instance, _ in found])
        self._routes[(call.service, call.method)] = route
        for gone in [key for key in self._peers if self.directory.get(key) is None]:
            del self._peers[gone]
        return route

    def _peer(self, instance: Instance) -> _Peer:
        found = self._peers.get(instance.id)
        if found is None:
            found = _Peer(instance.id, instance=instance, target=Target.of(instance.address))
            self._peers[instance.id] = found
        return found

    async def _changed(self, call: _Call) -> bool:
        """Wait for news of the instances; False when there is none in time."""
        limit = min(self._wait, call.deadline - self._clock.monotonic())
        try:
            async with asyncio.timeout(limit):
                await self.directory.changed()
        except TimeoutError:
            return False
        return True

    def _lost(self, call: _Call, peer: _Peer, error: ConnectFailed | ConnectionLost) -> None:
        """An instance could not be reached, or died. Raises `CallInterrupted` unless the call may go elsewhere."""
        peer.failed(self._clock.monotonic())
        call.tried |= {peer.key}
        call.error = error
        if isinstance(error, ConnectFailed):
            metrics.SERVICE_RETRIES.labels(call.service, "connect").inc()
            return
        call.repeats += 1
        route = self._routes.get((call.service, call.method))
        if route is None or not route.spec.idempotent:
            raise CallInterrupted(
                f"{call.name}: the instance {peer.key} was lost during the call; it may have been carried out",
                hint="a method marked @idempotent is repeated on another instance by itself",
            ) from None
        if call.repeats > MOST_REPEATS:
            raise self._given_up(call)
        metrics.SERVICE_RETRIES.labels(call.service, "lost").inc()

    def _refused(self, call: _Call, peer: _Peer, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Raises what an answer says that is no result, unless no method was begun and another try may help."""
        error = problem.decode(status, body)
        if context.REFUSED_HEADER.lower() not in headers:
            raise error
        metrics.SERVICE_RETRIES.labels(call.service, error.code).inc()
        call.error = error
        if status == 401:
            if call.renewed:
                raise error
            call.renewed = True
            self._tokens.forget(call.service, call.token)
        else:
            call.tried |= {peer.key}

    def _given_up(self, call: _Call) -> LLMAgentOSError:
        error = call.error
        if isinstance(error, ConnectFailed):
            return Unavailable(f"{call.name}: no instance can be reached: {error.message}", hint="`llmctl services`")
        if isinstance(error, ConnectionLost):
            return CallInterrupted(f"{call.name}: {call.repeats} instances were lost during the call: {error.message}")
        assert error is not None
        return error


def _request(call: _Call, peer: _Peer, left: float) -> bytes:
    extra = call.extra
    if tracing.enabled():
        headers: dict[str, str] = {}
        tracing.inject(headers)
        extra += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST /services/{call.service}/{call.method} HTTP/1.1\r\n"
        f"Host: {peer.target.host}\r\n"
        f"Authorization: Bearer {call.token}\r\n"
        "Content-Type: application/json\r\n"
        f"{context.TIMEOUT_HEADER}: {left:.3f}\r\n"
        f"{extra}"
        f"Content-Length: {len(call.body)}\r\n\r\n"
    )
    return head.encode("latin-1") + call.body


def _item(call: _Call, line: str) -> bytes | None:
    """The item on a line of a stream; None for the line that ends it. Raises the error that a line carries."""
    frame = msgspec.json.decode(line, type=_Frame)
    if error := bytes(frame.error):
        raise problem.decode(500, error)
    if frame.end:
        return None
    return bytes(frame.item)


class _Frame(msgspec.Struct):
    item: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw()
    end: bool = False


@lru_cache(maxsize=512)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=signature.from_json)


def _decoded(call: _Call, body: bytes, kind: Any) -> Any:
    try:
        return _decoder(kind).decode(body)
    except msgspec.MsgspecError as error:
        raise ServiceError(f"{call.name}: the result does not fit {kind}: {error}") from None


def _too_late(call: _Call) -> DeadlineExceeded:
    return DeadlineExceeded(f"{call.name}: no answer within {call.timeout:g} s")


def _header_value(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise InvalidInput(f"run id {text!r} cannot be sent")
    return text


_OBSERVERS: dict[tuple[str, str, str], Callable[[float], None]] = {}


def _observe(service: str, method: str, outcome: str, started: float) -> None:
    key = (service, method, outcome)
    observe = _OBSERVERS.get(key)
    if observe is None:
        observe = _OBSERVERS[key] = metrics.SERVICE_CALLS.labels(*key).observe
    observe(time.perf_counter() - started)

"""Answers the requests to a module: checks the token, finds the method, converts, calls, measures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from llmagentos.api import problem
from llmagentos.core import log, metrics, tracing
from llmagentos.core.errors import (
    DeadlineExceeded,
    InvalidInput,
    LLMAgentOSError,
    MethodNotAllowed,
    ServiceError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from llmagentos.security.identity import Identity
from llmagentos.security.service_tokens import ServiceTokenVerifier, module_audience, service_audience
from llmagentos.services import context
from llmagentos.services.context import CallContext
from llmagentos.services.errors import Overloaded, unknown_method, unknown_service
from llmagentos.services.rpc.http import Answer, Request, StreamAnswer, problem_answer
from llmagentos.services.rpc.limits import Limits
from llmagentos.services.rpc.threads import Escaped, NoThread, Threads
from llmagentos.services.service import Arguments, Method

_log = log.get(__name__)

_PREFIX = b"/services/"
_REFUSED = f"{context.REFUSED_HEADER}: 1\r\n".encode()
_TIMEOUT, _RUN, _TRACE = (
    name.lower().encode() for name in (context.TIMEOUT_HEADER, context.RUN_HEADER, context.TRACE_HEADER)
)
_LONG_BODY = 1024 * 1024
"""A body over this is decoded in a thread."""

Page = Callable[[], tuple[str, bytes]]
"""A page of the module itself: content type and body."""


@dataclass(slots=True)
class _Accepted:
    """An accepted call. `timeout` in seconds."""

    method: Method
    timeout: float
    context: CallContext


class Dispatcher:
    """The application behind a module's connections. `verifier` may be replaced at any time."""

    def __init__(self, module: str, pages: dict[str, Page], limits: Limits) -> None:
        self.verifier: ServiceTokenVerifier | None = None
        self._module = module
        self._pages = {path.encode(): page for path, page in pages.items()}
        self._limits = limits
        self._methods: dict[str, dict[str, Method]] = {}
        self._by_path: dict[bytes, tuple[Method, str]] = {}
        self._threads = Threads(limits.threads, limits.waiting)
        self._calls = 0

    def add(self, service: str, methods: dict[str, Method]) -> None:
        """Answer calls to a service."""
        self._methods[service] = methods
        audience = service_audience(service)
        for name, method in methods.items():
            self._by_path[_PREFIX + f"{service}/{name}".encode()] = (method, audience)

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.close()

    # Application
    def accept(self, request: Request) -> _Accepted | Page:
        """What answers the request. Raises `Unauthenticated`, `Overloaded`, `NotFound`, `InvalidInput`."""
        path = request.path.partition(b"?")[0]
        known = self._by_path.get(path)
        if known is None:
            return self._other(request, path)
        method, audience = known
        caller = self._caller(request, audience)
        if request.method != b"POST":
            raise MethodNotAllowed(f"a method is called with POST, not {request.method.decode('latin-1')}")
        if self._calls >= self._limits.calls:
            raise Overloaded(f"this instance answers {self._calls} calls already", retry_after=1.0)
        headers = request.headers
        timeout = _timeout(headers[_TIMEOUT]) if _TIMEOUT in headers else self._limits.timeout_s
        run, trace = headers.get(_RUN), headers.get(_TRACE)
        call = CallContext(
            time.monotonic() + timeout,
            run.decode("latin-1") if run else None,
            trace.decode("latin-1") if trace else None,
            caller,
        )
        return _Accepted(method, timeout, call)

    def refuse(self, request: Request | None, error: LLMAgentOSError) -> Answer:
        """A problem document that says that nothing was begun."""
        metrics.SERVICE_REFUSALS.labels(error.code).inc()
        headers = b"WWW-Authenticate: Bearer\r\n" if error.status == 401 else b""
        if isinstance(error, MethodNotAllowed):
            headers = b"Allow: %b\r\n" % (b"POST" if request and request.path.startswith(_PREFIX) else b"GET")
        if isinstance(error, Unauthenticated | Overloaded | Unavailable):
            headers += _REFUSED
        return problem_answer(error, headers)

    async def answer(self, request: Request) -> Answer | StreamAnswer:
        """The answer of a page or method."""
        accepted = request.accepted
        if not isinstance(accepted, _Accepted):
            kind, body = accepted()
            return Answer(200, body, kind.encode())
        context.enter(accepted.context)
        begun = time.perf_counter()
        outcome = "ok"
        self._calls += 1
        try:
            if not tracing.enabled():
                return await self._work(request, accepted)
            with _traced(accepted):
                return await self._work(request, accepted)
        except NoThread:
            overloaded = Overloaded("all threads of this instance are busy and enough calls wait", retry_after=1.0)
            outcome = overloaded.code
            return self.refuse(request, overloaded)
        except LLMAgentOSError as error:  # of ours: what the method raised is a ServiceError by now
            outcome = error.code
            return problem_answer(error)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._calls -= 1
            if not accepted.method.streams or outcome != "ok":  # a stream that began is counted at its end
                _observe(accepted.method, outcome, begun)

    def _other(self, request: Request, path: bytes) -> Page:
        """A page, or the reason why there is nothing: only for those who have an identity for it."""
        if (page := self._pages.get(path)) is not None:
            self._reader(request)
            if request.method not in (b"GET", b"HEAD"):
                raise MethodNotAllowed(f"{path.decode('latin-1')} is read with GET")
            return page
        service, _, method = path.removeprefix(_PREFIX).decode("latin-1").partition("/")
        if not path.startswith(_PREFIX):
            self._reader(request)
            raise unknown_service(self._module, path.decode("latin-1"), self._methods)
        self._caller(request, service_audience(service))
        if service in self._methods:
            raise unknown_method(service, method, self._methods[service])
        raise unknown_service(self._module, service, self._methods)

    def _reader(self, request: Request) -> Identity:
        """Who reads the module's own pages: with a token for the module, or for one of its services."""
        for audience in map(service_audience, self._methods):
            try:
                return self._caller(request, audience)
            except Unauthenticated:
                continue
        return self._caller(request, module_audience(self._module))

    def _caller(self, request: Request, audience: str) -> Identity:
        scheme, _, token = request.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthenticated(
                "this needs a service token: `Authorization: Bearer TOKEN`",
                hint=f"`llmctl token service {audience.partition(':')[2]}` prints one",
            )
        if self.verifier is None:
            raise Unavailable("this instance is not registered yet and cannot verify tokens")
        return self.verifier.verify(token.decode("latin-1"), audience)

    async def _work(self, request: Request, accepted: _Accepted) -> Answer | StreamAnswer:
        method = accepted.method
        if method.streams:
            return await self._stream(request, accepted)
        if len(request.body) > _LONG_BODY:
            positional, named = await self._arguments(request, method)
        else:
            positional, named = method.arguments(request.body)
        limit = _Limit(accepted.timeout)
        try:
            if method.is_async:
                value = await method.function(*positional, **named)
            else:
                value = await self._threads.run(lambda: method.function(*positional, **named))
        except asyncio.CancelledError as error:
            if limit.passed():
                raise _too_late(accepted) from None
            if _cancelled():
                raise
            raise _failure(method, error) from None
        except NoThread:
            raise
        except _RAISED as error:  # the edge around the user's code: whatever it raises is for the caller
            raise _failure(method, error) from None
        finally:
            limit.end()
        return Answer(200, self._encoded(method, value))

    async def _arguments(self, request: Request, method: Method) -> Arguments:
        """Decoded in a thread: a long body would hold up the event loop."""
        return await asyncio.to_thread(method.arguments, request.body)

    def _encoded(self, method: Method, value: Any) -> bytes:
        try:
            body = method.encode(value)
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise _failure(method, TypeError(f"the result cannot be sent: {error}")) from None
        if len(body) > self._limits.result:
            raise _failure(method, TooLarge(f"the result is over {self._limits.result} bytes"))
        return body

    async def _stream(self, request: Request, accepted: _Accepted) -> StreamAnswer:
        """The first item is made before the head is sent, so that an early error has a status of its own."""
        method = accepted.method
        positional, named = await self._arguments(request, method)
        if method.is_async:
            items = method.function(*positional, **named)
        else:
            items = self._threads.iterate(await self._called(method, lambda: method.function(*positional, **named)))
        first = await self._item(items, accepted)
        return StreamAnswer(self._lines(items, first, accepted))

    async def _called(self, method: Method, bound: Callable[[], Any]) -> Any:
        try:
            return iter(await self._threads.run(bound))
        except NoThread:
            raise
        except Exception as error:  # as in `_work`
            raise _failure(method, error) from None

    async def _item(self, items: Any, accepted: _Accepted) -> bytes | None:
        """The next item as JSON; None at the end. The timeout counts anew for each item."""
        method = accepted.method
        accepted.context.deadline = time.monotonic() + accepted.timeout
        try:
            async with asyncio.timeout(accepted.timeout) as limit:
                value = await anext(items)
        except StopAsyncIteration:
            return None
        except TimeoutError as error:
            raise (_too_late(accepted) if limit.expired() else _failure(method, error)) from None
        except NoThread:
            raise
        except asyncio.CancelledError as error:
            if _cancelled():
                raise
            raise _failure(method, error) from None
        except _RAISED as error:  # as in `_work`
            raise _failure(method, error) from None
        return self._encoded(method, value)

    async def _lines(self, items: Any, first: bytes | None, accepted: _Accepted) -> AsyncGenerator[bytes, None]:
        begun = time.perf_counter()
        outcome = "ok"
        item = first
        self._calls += 1
        try:
            async with aclosing(items):
                while item is not None:
                    yield b'{"item":%b}\n' % item
                    item = await self._item(items, accepted)
            yield b'{"end":true}\n'
        except (LLMAgentOSError, NoThread) as error:
            known = error if isinstance(error, LLMAgentOSError) else Overloaded("no thread is free", retry_after=1.0)
            outcome = known.code
            yield b'{"error":%b}\n' % problem.encode(known)
        except BaseException:
            outcome = "cancelled"
            raise
        finally:
            self._calls -= 1
            _observe(accepted.method, outcome, begun)


class _Limit:
    """Cancels the running task after some seconds: `asyncio.timeout` at a third of its cost, for a single await."""

    __slots__ = ("_fired", "_handle", "_task")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._fired = False
        self._handle = asyncio.get_running_loop().call_later(seconds, self._fire)

    def _fire(self) -> None:
        self._fired = True
        self._task.cancel()

    def passed(self) -> bool:
        """Whether the cancellation that arrived is this one's, and only its."""
        return self._fired and self._task.uncancel() == 0

    def end(self) -> None:
        """The limit no longer counts."""
        self._handle.cancel()


def _timeout(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86_400 * 30:
        raise InvalidInput(f"{context.TIMEOUT_HEADER} must be a number of seconds above 0, not {value!r}")
    return seconds


def _too_late(accepted: _Accepted) -> DeadlineExceeded:
    method = accepted.method
    return DeadlineExceeded(f"{method.service}.{method.name}: no answer within {accepted.timeout:g} s")


_RAISED = (Exception, SystemExit, KeyboardInterrupt)
"""What is for one caller only: a method that calls `sys.exit` must not end the module for all the others."""


def _cancelled() -> bool:
    """Whether this call is cancelled; if not, a method awaited something that somebody else cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failure(method: Method, error: BaseException) -> ServiceError:
    """What the caller is told of an exception of the method; the log has the rest."""
    error = error.error if isinstance(error, Escaped) else error
    _log.warning("method failed", service=method.service, method=method.name, exc_info=error)
    told = error.message if isinstance(error, LLMAgentOSError) else str(error)
    return ServiceError(
        told[:10_000] or type(error).__name__,
        remote_type=type(error).__name__,
        hint=error.hint if isinstance(error, LLMAgentOSError) else None,
        service=method.service,
        method=method.name,
    )


def _traced(accepted: _Accepted) -> AbstractContextManager[Any]:
    method, parent = accepted.method, accepted.context.traceparent
    return tracing.span(
        f"{method.service}.{method.name}",
        kind=tracing.SERVER,
        parent={context.TRACE_HEADER: parent} if parent else None,
        rpc__service=method.service,
        rpc__method=method.name,
    )


_OBSERVERS: dict[tuple[str, str, str], Callable[[float], None]] = {}


def _observe(method: Method, outcome: str, begun: float) -> None:
    key = (method.service, method.name, outcome)
    observe = _OBSERVERS.get(key)
    if observe is None:
        observe = _OBSERVERS[key] = metrics.SERVICE_REQUESTS.labels(*key).observe
    observe(time.perf_counter() - begun)

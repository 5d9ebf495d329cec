"""`ServiceClient`: a service's methods, from plain and from async code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from copy import copy
from typing import Any, Self

from llmagentos.core.errors import Conflict
from llmagentos.services import runtime
from llmagentos.services.runtime import BACKGROUND


class WouldBlock(Conflict):
    """A blocking call was made on an event loop."""

    code = "would_block"


class ServiceClient:
    """Calls the methods of `service`, wherever its instances are.

        client = ServiceClient("hello-service")
        client.call("say_hello", name="world")     # or client.say_hello(name="world")
        await client.acall("say_hello", name="world")

    A streaming method gives an iterator (`for item in client.call(...)`,
    `async for item in await client.acall(...)`). Errors are those of `services.caller.ServiceCaller.call`.
    Clients are cheap: all of a program share connections. They may be used from any thread and any loop.
    """

    def __init__(self, service: str, *, timeout: float | None = None, returns: Any = Any) -> None:
        """`timeout` in seconds for each call (30 by default); `returns` is the type that results are converted to."""
        self._service = service
        self._timeout = timeout
        self._returns = returns

    def using(self, *, timeout: float | None = None, returns: Any = None) -> Self:
        """A copy with another timeout or type of results: `client.using(timeout=2).call(...)`."""
        other = copy(self)
        other._timeout = self._timeout if timeout is None else timeout
        other._returns = self._returns if returns is None else returns
        return other

    def call(self, method: str, /, **arguments: Any) -> Any:
        """The result of a method, waited for; for a streaming method an iterator of its items."""
        _refuse_on_a_loop(method)
        result = BACKGROUND.run(self.acall(method, **arguments))
        return _Items(result) if isinstance(result, AsyncIterator) else result

    async def acall(self, method: str, /, **arguments: Any) -> Any:
        """The result of a method; for a streaming method an async iterator of its items."""
        caller = runtime.here().caller
        return await caller.call(self._service, method, arguments, timeout=self._timeout, returns=self._returns)

    def __getattr__(self, name: str) -> _Bound:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Bound(self, name)

    def __repr__(self) -> str:
        return f"ServiceClient({self._service!r})"


class _Bound:
    """One method of a client: calling it is calling the method."""

    def __init__(self, client: ServiceClient, method: str) -> None:
        self._client = client
        self._method = method

    def __call__(self, **arguments: Any) -> Any:
        return self._client.call(self._method, **arguments)

    def __repr__(self) -> str:
        return f"{self._client!r}.{self._method}"


class _Items(Iterator[Any]):
    """The items of a stream for plain code; closing it (or dropping it) tells the instance to stop."""

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items

    def __next__(self) -> Any:
        try:
            return BACKGROUND.run(_next(self._items))
        except _Ended:
            raise StopIteration from None

    def close(self) -> None:
        """Stop the stream."""
        BACKGROUND.run(_close(self._items))


class _Ended(Exception):
    """A coroutine cannot raise StopAsyncIteration across threads without losing it."""


async def _next(items: AsyncIterator[Any]) -> Any:
    try:
        return await anext(items)
    except StopAsyncIteration:
        raise _Ended from None


async def _close(items: Any) -> None:
    await items.aclose()


def _refuse_on_a_loop(method: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WouldBlock(
        f"call({method!r}) would block this event loop", hint=f"await client.acall({method!r}, ...) instead"
    )

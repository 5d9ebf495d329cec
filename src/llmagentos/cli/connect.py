"""How a command reaches the server: discovery, one client, errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from llmagentos.api.client import ApiClient
from llmagentos.api.http import ConnectFailed
from llmagentos.core.discovery import discover
from llmagentos.core.errors import Unauthenticated, Unavailable
from llmagentos.core.i18n import tr

T = TypeVar("T")


@asynccontextmanager
async def connected(*, timeout: float = 30.0) -> AsyncIterator[ApiClient]:
    """The client of the server that discovery finds; `timeout` is the default per call, in seconds.

    Raises `Unavailable` or `Unauthenticated` with what to do about it.
    """
    credentials = discover()
    async with ApiClient(credentials.server, credentials.token, tls=credentials.tls(), timeout=timeout) as client:
        try:
            yield client
        except ConnectFailed as error:
            raise Unavailable(
                tr("{server} does not answer: {error}", server=credentials.server, error=error.message),
                hint=error.hint or tr("is it running? `llmctl up` starts it here, `llmctl doctor` says what is wrong"),
            ) from None
        except Unauthenticated as error:
            raise Unauthenticated(
                error.message,
                hint=error.hint or tr("`llmctl login {server}` with a valid token", server=credentials.server),
            ) from None


def execute(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end; one error inside a task group comes out as itself."""
    try:
        return asyncio.run(main)
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

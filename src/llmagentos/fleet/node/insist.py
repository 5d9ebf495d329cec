"""Calls that have to come through: repeated with backoff while the server is away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from llmagentos.api.nodes import Cloned
from llmagentos.core import log
from llmagentos.core.errors import CallerError, LLMAgentOSError, TooManyRequests
from llmagentos.core.lifecycle import Backoff

T = TypeVar("T")
_log = log.get(__name__)


def passing(error: Exception) -> bool:
    """Whether the same call may succeed later: the server is away, overloaded or broken, or takes us for a copy."""
    return not isinstance(error, CallerError) or isinstance(error, TooManyRequests | Cloned)


def spread(seconds: float) -> float:
    """Up to a fifth less than `seconds`: a thousand nodes that began together do not stay together."""
    return seconds * random.uniform(0.8, 1.0)  # noqa: S311 - no secret


async def insist(call: Callable[[], Awaitable[T]], *, what: str) -> T:
    """The answer of `call`, however long it takes. Raises the errors that waiting does not mend."""
    backoff = Backoff(first=0.2, most=5.0)
    while True:
        try:
            answer = await call()
        except (LLMAgentOSError, msgspec.DecodeError) as error:
            if not passing(error):
                raise
            if backoff.failures == 0:
                _log.warning("server away", doing=what, error=str(error))
            await asyncio.sleep(backoff.died(0.0))
        else:
            if backoff.failures:
                _log.info("server back", doing=what, failures=backoff.failures)
            return answer

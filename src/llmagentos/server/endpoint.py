"""What a route is: method, path, the permission it needs, typed body and answer.

Routes are declared as data so that one place authenticates, limits, decodes, measures and documents
them all, and so that a test can walk them. `routes/<noun>.py` holds a function that takes the
narrow things it needs and returns its endpoints.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from starlette.requests import Request

from llmagentos.core.errors import InvalidInput
from llmagentos.security.identity import Identity, Permission

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated, decoded request."""

    identity: Identity
    path: Mapping[str, str]  # path parameters
    query: Mapping[str, str]
    body: Any  # of the endpoint's `body` type; bytes when that is `bytes`; None without one
    request: Request  # for headers, disconnects and streams

    def flag(self, name: str) -> bool:
        """A boolean query parameter: absent, 0 and false are False."""
        return self.query.get(name, "0").lower() not in ("0", "false", "")

    def choice(self, name: str, kind: type[E]) -> E | None:
        """A query parameter that is one of a few words; None without it. Raises `InvalidInput` for another one."""
        text = self.query.get(name)
        if text is None:
            return None
        try:
            return kind(text)
        except ValueError:
            raise InvalidInput(f"{name} must be one of {', '.join(kind)}, not {text!r}") from None

    def number(self, name: str, default: float, *, most: float) -> float:
        """A numeric query parameter, capped at `most`. Raises `InvalidInput` for anything else."""
        text = self.query.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise InvalidInput(f"{name} must be a number of at least 0, not {text!r}")
        return min(value, most)


Handler = Callable[[Call], Awaitable[Any]]
"""Returns a msgspec-encodable value (200), None (204), or a Starlette Response as it is."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route of the API."""

    method: str
    path: str  # Starlette's template, e.g. "/api/v1/runs/{id}"
    allow: Permission
    handler: Handler
    body: Any = None  # type of the JSON body; `bytes` for a raw one; None for none
    returns: Any = None  # type of the JSON answer, for the OpenAPI document
    summary: str = ""  # one line for the reference
    max_body: int | None = None  # bytes; None for the configured server.limits.body_bytes
    streams: bool = False  # answers with server-sent events
    audited: bool = False  # a change that a person makes: it goes into the audit log

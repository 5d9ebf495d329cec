"""Tokens on the wire."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llmagentos.api.nodes import Label, LabelValue, ModulePattern

Subject = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$")]


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token to make. `ttl_s` in seconds; without one it lives until it is revoked (a join token: an hour)."""

    kind: str
    name: Subject
    ttl_s: Annotated[float, Meta(gt=0)] | None = None
    uses: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """Of a join token: how many machines may join with it."""
    modules: Annotated[list[ModulePattern], Meta(max_length=64)] = []
    """Of a join token: modules that the nodes may run, by name with `*` and `?`."""
    labels: Annotated[dict[Label, LabelValue], Meta(max_length=64)] = {}
    """Of a join token: labels that the nodes get."""


class TokenInfo(msgspec.Struct, frozen=True):
    """A token without its secret. Times are seconds since the epoch, UTC."""

    id: str
    kind: str
    name: str
    created: float
    created_by: str
    expires: float | None = None
    one_time: bool = False
    uses_left: int | None = None
    """Of a join token."""


class NewToken(msgspec.Struct, frozen=True):
    """A token that was just made: the only time its secret is told."""

    token: str
    info: TokenInfo


Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""Of a module, a service or an agent."""


class ServiceTokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for a token for the methods of `service`, or for the own pages of `module`: one of the two."""

    service: Name | None = None
    module: Name | None = None


class ServiceToken(msgspec.Struct, frozen=True):
    """A token for one service (or module), good for `expires_in` seconds."""

    token: str
    expires_in: float


class Keys(msgspec.Struct, frozen=True):
    """The public keys that verify service tokens (JSON Web Key Set, RFC 7517)."""

    keys: list[dict[str, Any]]

"""What a node proves that it is itself with: a JWT signed with its key (private_key_jwt, RFC 7523, ES256).

It is good for one exchange within a minute or two. Its `jti` is a number that only grows, and the server keeps the
highest one of each node: so none works twice, and of two machines with one identity the second is found out.
"""

from __future__ import annotations

from typing import Any

import jwt
import msgspec

from llmagentos.core.errors import Unauthenticated
from llmagentos.security.certificates import public_key

AUDIENCE = "llmagentos:node-token"
LIFETIME_S = 60
LEEWAY_S = 60.0
MAX_LENGTH = 2048


class Assertion(msgspec.Struct, frozen=True):
    """A verified one: the `node` says that it runs at `place`, for the `counter`th time that it asks."""

    node: str
    serial: str
    counter: int
    place: str


def serial_of(token: str) -> str | None:
    """The serial number of the certificate that an assertion refers to; None when it is no assertion."""
    if len(token) > MAX_LENGTH or token.count(".") != 2:
        return None
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        return None
    serial = header.get("kid")
    return serial if isinstance(serial, str) and len(serial) == 40 else None


def verify(token: str, *, serial: str, node: str, certificate: str, now: float) -> Assertion:
    """What an assertion says. Raises `Unauthenticated` unless the key of the PEM `certificate` of `node` signed it."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            public_key(certificate),
            algorithms=["ES256"],
            audience=AUDIENCE,
            issuer=node,
            # The times are compared below: with the server's clock, which tests and this process agree on.
            options={"require": ["exp", "iat", "jti", "sub"], "verify_exp": False, "verify_iat": False},
        )
        counter, place = int(claims["jti"]), str(claims["place"])
        issued, expires = float(claims["iat"]), float(claims["exp"])
    except (jwt.InvalidTokenError, KeyError, ValueError, TypeError) as error:
        raise Unauthenticated(f"not a valid assertion of node {node!r}: {type(error).__name__}") from None
    if claims["sub"] != node or not 0 < counter < 2**53 or not 0 < len(place) <= 64:
        raise Unauthenticated(f"not a valid assertion of node {node!r}")
    if not issued - LEEWAY_S <= now <= min(expires, issued + LIFETIME_S) + LEEWAY_S:
        raise ClockSkew(f"the assertion is {now - issued:+.0f} s old: the clock of node {node!r} is off", time=now)
    return Assertion(node, serial, counter, place)


class ClockSkew(Unauthenticated):
    """The node's clock differs too much; `details["time"]` is the server's, to go by."""

    code = "clock_skew"

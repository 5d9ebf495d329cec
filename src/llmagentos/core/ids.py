"""Identifiers: short enough to type, random enough never to collide."""

from __future__ import annotations

import hashlib
import secrets

# Crockford base 32 (crockford.com/base32.html), lower case: no i, l, o, u.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 12


def new_id() -> str:
    """A random id of 12 characters (60 bits), e.g. `7k3m9x2pq04t`."""
    return _spelt(secrets.randbits(5 * LENGTH))


def id_of(*parts: str) -> str:
    """The id that stands for `parts` (which say what it is an id of): the same ones always have the same."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return _spelt(int.from_bytes(digest[:8], "big"))


def _spelt(bits: int) -> str:
    return "".join(_ALPHABET[(bits >> (5 * i)) & 31] for i in range(LENGTH))

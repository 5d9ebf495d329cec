"""Opaque bearer tokens: random, recognisable by prefix, stored only as SHA-256.

A hash without salt or stretching is enough here because a token is 256 random bits, not a password.
"""

from __future__ import annotations

import hashlib
import secrets

from llmagentos.security.identity import Kind

PREFIX = "lao_"


def mint(kind: Kind) -> str:
    """A new token, e.g. `lao_node_...`: secret scanners and people can tell what leaked."""
    return f"{PREFIX}{kind.value}_{secrets.token_urlsafe(32)}"


def digest(token: str) -> str:
    """What storage keeps of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()

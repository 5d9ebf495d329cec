"""Passwords of Ansible's vault on their way to nodes: sealed to each node's key as soon as they come.

The server never stores them otherwise, so it can be stopped at any time. A node whose key is replaced before it
begins the job cannot open its box any more: then the job fails there, and says that it has to be run again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from llmagentos.api.vault import PURPOSE, VaultPassword
from llmagentos.core.errors import Conflict
from llmagentos.core.sealing import seal

Certificates = Callable[[str], Awaitable[list[str]]]
"""A node's certificates that count, as PEM."""


class NoKey(Conflict):
    """The node has no key that a password could be sealed to."""

    code = "node_without_key"


async def sealed(
    passwords: Sequence[VaultPassword], nodes: Sequence[str], certificates: Certificates
) -> dict[str, list[str]]:
    """The passwords, for each of `nodes` in a box that only that node can open, one for each key that it may have.

    Raises `NoKey`.
    """
    content = msgspec.json.encode(list(passwords))
    found: dict[str, list[str]] = {}
    for node in nodes:
        keys = [x509.load_pem_x509_certificate(pem.encode()).public_key() for pem in await certificates(node)]
        found[node] = [seal(key, content, PURPOSE) for key in keys if isinstance(key, ec.EllipticCurvePublicKey)]
        if not found[node]:
            raise NoKey(
                f"node {node!r} has no key that the vault password could be encrypted to",
                hint="it has to join again: `llmctl node join`",
                node=node,
            )
    return found

"""Secrets on their way to nodes (Ansible's vault passwords, a job's secret variables): sealed to each node's key.

The server does so as soon as they come and never stores them otherwise, so it can be stopped at any time. A node
whose key is replaced before it begins the job cannot open its box any more: then the job fails there, and says that
it has to be run again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from llmagentos.core.errors import Conflict
from llmagentos.core.sealing import seal

Certificates = Callable[[str], Awaitable[list[str]]]
"""A node's certificates that count, as PEM."""


class NoKey(Conflict):
    """The node has no key that a secret could be sealed to."""

    code = "node_without_key"


async def sealed(
    content: bytes, purpose: str, nodes: Sequence[str], certificates: Certificates
) -> dict[str, list[str]]:
    """`content` for each of `nodes` in a box that only that node can open, one for each key that it may have.

    Raises `NoKey`.
    """
    found: dict[str, list[str]] = {}
    for node in nodes:
        keys = [x509.load_pem_x509_certificate(pem.encode()).public_key() for pem in await certificates(node)]
        found[node] = [seal(key, content, purpose) for key in keys if isinstance(key, ec.EllipticCurvePublicKey)]
        if not found[node]:
            raise NoKey(
                f"node {node!r} has no key that the secrets of the job could be encrypted to",
                hint="it has to join again: `llmctl node join`",
                node=node,
            )
    return found

"""The secrets of a job, opened with the node's key just before its playbook begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmagentos.core.errors import InvalidInput
from llmagentos.core.sealing import CannotOpen

Unseal = Callable[[str, str], bytes]
"""Opens a box that was sealed to this node for a purpose; raises `CannotOpen`."""


class SecretLost(InvalidInput):
    """The key that the secrets were sealed to is no longer this node's."""

    code = "secret_lost"


def opened(boxes: Sequence[str], purpose: str, unseal: Unseal | None) -> bytes:
    """What was sealed for `purpose`, as JSON. Raises `SecretLost`."""
    for box in boxes:
        try:
            if unseal is not None:
                return unseal(box, purpose)
        except CannotOpen:
            continue
    raise SecretLost(
        "a secret of this job (vault password, secret variable) was encrypted to a key that this node no longer has: "
        "run it again, it needs the secret again"
    )

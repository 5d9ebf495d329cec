"""The vault passwords of a job, opened with the node's key just before its playbook begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmagentos.api.vault import PURPOSE
from llmagentos.core.errors import InvalidInput
from llmagentos.core.sealing import CannotOpen

Unseal = Callable[[str, str], bytes]
"""Opens a box that was sealed to this node for a purpose; raises `CannotOpen`."""


class PasswordLost(InvalidInput):
    """The key that the passwords were sealed to is no longer this node's."""

    code = "vault_password_lost"


def opened(boxes: Sequence[str], unseal: Unseal | None) -> bytes:
    """The passwords as JSON. Raises `PasswordLost`."""
    for box in boxes:
        try:
            if unseal is not None:
                return unseal(box, PURPOSE)
        except CannotOpen:
            continue
    raise PasswordLost(
        "the vault password was encrypted to a key that this node no longer has: run the playbook again, "
        "it needs the password again"
    )

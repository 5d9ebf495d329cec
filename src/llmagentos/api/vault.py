"""Passwords of Ansible's vault on the wire, and what the boxes of these and of a job's secrets are for."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_PASSWORDS = 16
PURPOSE = "vault passwords of a job"
"""What their boxes are sealed for."""
VARIABLES = "secret variables of a job"
"""What the boxes of a job's other secrets are sealed for."""


class VaultPassword(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One password and the vault id that it is for."""

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    password: Annotated[str, Meta(min_length=1, max_length=8192)]

    def __repr__(self) -> str:
        return f"VaultPassword(id={self.id!r})"

    __str__ = __repr__

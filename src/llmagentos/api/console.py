"""What the console's part of the API speaks."""

from __future__ import annotations

import msgspec


class LoginLink(msgspec.Struct, frozen=True):
    """A link that logs its holder in to the console once."""

    path: str
    """Path and query, relative to the server's origin."""
    expires_in: float
    """Seconds."""

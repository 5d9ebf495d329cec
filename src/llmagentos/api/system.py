"""What a server says of itself."""

from __future__ import annotations

import msgspec


class Health(msgspec.Struct, frozen=True):
    """The server answers and reaches its database."""

    status: str


class SystemInfo(msgspec.Struct, frozen=True):
    """The server. `time` and `started` are seconds since the epoch, UTC."""

    version: str
    python: str
    address: str
    database: str
    time: float
    started: float
    pid: int
    identity: str
    """Who is asking, as `kind:name`."""

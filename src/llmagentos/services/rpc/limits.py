"""What one module takes at most, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    head: int = 16 * 1024
    """Request line and headers together."""
    body: int = 16 * 1024 * 1024
    """A request's body."""
    result: int = 64 * 1024 * 1024
    """A result, or one item of a stream."""
    connections: int = 2048
    calls: int = 1024
    """Calls that are being answered at once; more are refused with 429."""
    threads: int = 32
    """Threads for plain (not async) methods."""
    waiting: int = 512
    """Calls of plain methods that may wait for a thread."""
    receive_s: float = 20.0
    """A whole request must arrive within this time from its first byte."""
    send_s: float = 60.0
    """A caller that reads nothing for this long is dropped."""
    idle_s: float = 75.0
    """Kept-alive connections are closed after this long without a request; longer than clients keep them."""
    timeout_s: float = 300.0
    """Calls may take this long when the caller names no timeout; a caller may ask for more."""

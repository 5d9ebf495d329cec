"""Host and port in one text, and who can reach a host."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or the same after `http://`. Raises `ValueError`."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme not in ("tcp", "http", "https") or parts.path not in ("", "/") or parts.query or parts.username:
        raise ValueError("expected host:port, e.g. 127.0.0.1:7080")
    port = parts.port  # itself a ValueError for a port that is none
    if not parts.hostname or not port:
        raise ValueError("expected host:port with a port from 1 to 65535, e.g. 127.0.0.1:7080")
    return parts.hostname, port


def is_server(url: str) -> bool:
    """Whether HTTP requests can be sent to `url`."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an address in brackets that is none
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. A name other than localhost counts as reachable by others."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

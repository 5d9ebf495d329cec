"""Whom this process trusts when it calls others over https: this machine's CAs, and those that were named.

One context for the whole process: to read the machine's CAs takes tens of milliseconds.
"""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

from llmagentos.core.errors import ConfigError


@cache
def context() -> ssl.SSLContext:
    """What connections to others are made with."""
    return ssl.create_default_context()


def also(ca: Path) -> None:
    """Trust the certificates in the PEM file `ca` too. Raises `ConfigError` when it holds none."""
    try:
        context().load_verify_locations(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{ca}: not a readable CA certificate: {error}") from None

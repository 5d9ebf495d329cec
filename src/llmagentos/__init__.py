"""LLMAgentOS for programs: `from llmagentos import Module, Service, ServiceClient, Agent, tool`.

Names are loaded when they are first used: importing this package costs nothing and pulls in no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmagentos.agents import Agent, tool
    from llmagentos.core.errors import ServiceError
    from llmagentos.services.client import ServiceClient
    from llmagentos.services.module import Module
    from llmagentos.services.service import Service, idempotent

__all__ = ["Agent", "Module", "Service", "ServiceClient", "ServiceError", "idempotent", "tool"]

_HOMES = {
    "Agent": "llmagentos.agents",
    "Module": "llmagentos.services.module",
    "Service": "llmagentos.services.service",
    "ServiceClient": "llmagentos.services.client",
    "ServiceError": "llmagentos.core.errors",
    "idempotent": "llmagentos.services.service",
    "tool": "llmagentos.agents",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Every table of the system on one `METADATA`: what migrations are made from."""

from llmagentos.storage import (
    agents,
    audit,
    budgets,
    calls,
    certificates,
    instances,
    jobs,
    mcp,
    nodes,
    responses,
    runs,
    schedules,
    shares,
    telemetry,
    templates,
    tokens,
    values,
)
from llmagentos.storage.database import METADATA

__all__ = [
    "METADATA",
    "agents",
    "audit",
    "budgets",
    "calls",
    "certificates",
    "instances",
    "jobs",
    "mcp",
    "nodes",
    "responses",
    "runs",
    "schedules",
    "shares",
    "telemetry",
    "templates",
    "tokens",
    "values",
]

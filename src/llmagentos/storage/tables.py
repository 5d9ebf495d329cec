"""Every table of the system on one `METADATA`: what migrations are made from."""

from llmagentos.storage import agents, audit, budgets, calls, certificates, instances, jobs, mcp, nodes
from llmagentos.storage import responses, runs, tokens
from llmagentos.storage.database import METADATA

__all__ = ["METADATA", "agents", "audit", "budgets", "calls", "certificates", "instances", "jobs"]
__all__ += ["mcp", "nodes", "responses", "runs", "tokens"]

"""Every table of the system on one `METADATA`: what migrations are made from."""

from llmagentos.storage import agents, audit, budgets, calls, instances, jobs, nodes, responses, runs, tokens
from llmagentos.storage.database import METADATA

__all__ = ["METADATA", "agents", "audit", "budgets", "calls", "instances", "jobs"]
__all__ += ["nodes", "responses", "runs", "tokens"]

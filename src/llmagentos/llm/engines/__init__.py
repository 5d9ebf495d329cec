"""Engines: the processes of this machine that the supervisor starts, and the drivers that the gateway calls."""

from llmagentos.llm.engines.local import Child, children

__all__ = ["Child", "children"]

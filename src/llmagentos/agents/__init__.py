"""Agents: what they are, the run loop on the run's log, and the hosts that carry runs on."""

from llmagentos.agents.agent import Agent
from llmagentos.agents.tools import tool
from llmagentos.api.agents import Limits, ToolUse

__all__ = ["Agent", "Limits", "ToolUse", "tool"]

"""Agents: rows of the table, and one agent's definition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmagentos.api.agents import AgentInfo
from llmagentos.server.console import words
from llmagentos.server.console.words import Translate


def rows(agents: Iterable[AgentInfo], t: Translate) -> list[dict[str, Any]]:
    """Agents as the table shows them."""
    return [
        {
            "name": agent.name,
            "model": agent.spec.model,
            "tools": _uses(agent),
            "host": host(agent, t),
            "version": agent.version,
            "updated": agent.updated,
        }
        for agent in agents
    ]


def page(agent: AgentInfo, t: Translate) -> dict[str, Any]:
    """One agent."""
    spec = agent.spec
    return {
        "name": agent.name,
        "model": spec.model,
        "version": agent.version,
        "host": host(agent, t),
        "ground": spec.ground,
        "tools": [tool.source for tool in spec.tools] + agent.functions,
        "instructions": spec.instructions,
        "updated": agent.updated,
        "limits": [
            (t("Most steps"), words.number(spec.limits.steps)),
            (t("Most tokens"), words.number(spec.limits.tokens)),
            (t("Most time"), words.duration(spec.limits.timeout)),
        ],
    }


def host(agent: AgentInfo, t: Translate) -> str:
    """Where its runs are carried on, and when nobody does so now."""
    where = t("this server") if agent.host == "server" else agent.host.removeprefix("module:")
    return where if agent.online else t("{host} (not running)", host=where)


def _uses(agent: AgentInfo) -> list[str]:
    ground = [agent.spec.ground] if agent.spec.ground else []
    return list(dict.fromkeys([*ground, *(tool.source for tool in agent.spec.tools), *agent.functions]))

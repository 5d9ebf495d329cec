"""Agent cards (A2A 1.0, section 4.4): what our agents say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentProvider,
    AgentSkill,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)
from google.protobuf.json_format import MessageToDict

from llmagentos.agents.records import Agent

SCHEME = "bearer"
PROTOCOL = "1.0"
WELL_KNOWN = "/.well-known/agent-card.json"
_MOST_DESCRIPTION = 1_000
_HOW = "A token of this server (`llmctl token create`). The cards need one too: nothing here answers without."


def of_agent(base: str, agent: Agent) -> AgentCard:
    """The card of one agent; `base` is the server's origin."""
    spec = agent.spec
    return _card(f"{base}/a2a/{spec.name}", spec.name, _described(agent), str(agent.version), [_skill(agent)])


def of_server(base: str, agents: Sequence[Agent], version: str) -> AgentCard:
    """The card of all agents together, each a skill: a message says in `metadata.agent` for which one it is."""
    described = (
        "All agents of an LLMAgentOS server. Say in the message's `metadata.agent` which skill is meant; each agent "
        f"has a card of its own at {base}/a2a/NAME{WELL_KNOWN}."
    )
    return _card(f"{base}/a2a", "LLMAgentOS", described, version, [_skill(agent) for agent in agents])


def plain(card: AgentCard) -> dict[str, Any]:
    """The card as JSON."""
    shown: dict[str, Any] = MessageToDict(card)
    return shown


def _card(url: str, name: str, description: str, version: str, skills: list[AgentSkill]) -> AgentCard:
    requirement = SecurityRequirement(schemes={SCHEME: StringList()})
    scheme = SecurityScheme(http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="Bearer", description=_HOW))
    return AgentCard(
        name=name,
        description=description,
        version=version,
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version=PROTOCOL),
            AgentInterface(url=url, protocol_binding="HTTP+JSON", protocol_version=PROTOCOL),
        ],
        provider=AgentProvider(organization="LLMAgentOS", url=url),
        capabilities=AgentCapabilities(streaming=True, push_notifications=False, extended_agent_card=False),
        security_schemes={SCHEME: scheme},
        security_requirements=[requirement],
        default_input_modes=["text/plain", "application/json"],
        default_output_modes=["text/plain", "application/json"],
        skills=skills,
    )


def _described(agent: Agent) -> str:
    return agent.spec.instructions[:_MOST_DESCRIPTION] or f"The agent {agent.spec.name}."


def _skill(agent: Agent) -> AgentSkill:
    name = agent.spec.name
    return AgentSkill(id=name, name=name, description=_described(agent), tags=["agent"])

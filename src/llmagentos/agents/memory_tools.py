"""The tools `remember` and `recall` of agents with a long-term memory, in the server and in modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from llmagentos.agents.grounding import RECALL_ID
from llmagentos.agents.tools import CalledBy, Tool, Toolset
from llmagentos.api import memory as api
from llmagentos.api.agents import AgentSpec
from llmagentos.api.client import ApiClient
from llmagentos.api.memory import Fact, RunFact, RunQuery
from llmagentos.core.errors import ConfigError, InvalidInput

REMEMBER = "remember"


class RunMemory(Protocol):
    """The memory that belongs to a run: of its agent, and of who asked for it."""

    async def remember(self, run: str, fact: RunFact) -> Fact: ...
    async def recall(self, run: str, query: str) -> list[Fact]: ...


class ApiMemory:
    """The same from a module."""

    def __init__(self, client: Callable[[], ApiClient]) -> None:
        self._client = client

    async def remember(self, run: str, fact: RunFact) -> Fact:
        """Store a fact."""
        return await api.remember(self._client(), run, fact)

    async def recall(self, run: str, query: str) -> list[Fact]:
        """What fits `query`."""
        return await api.recall(self._client(), run, query)


def with_memory(tools: Toolset, spec: AgentSpec, memory: RunMemory) -> Toolset:
    """`tools` with those of the agent's memory. Raises `ConfigError` when another tool has such a name."""
    if not spec.memory.long_term:
        return tools
    recall, remember = _recall(memory), _remember(memory)
    for made in (recall, remember):
        if tools.get(made.name) is not None:
            raise ConfigError(f"the agent {spec.name!r} has a tool {made.name!r} and a memory with one of that name")
    automatic = spec.memory.recall == "auto"
    shown = [*([] if automatic else [recall]), *([remember] if spec.memory.remember else [])]
    return replace(tools, tools=(*tools.tools, *shown), hidden=(recall,) if automatic else ())


def _remember(memory: RunMemory) -> Tool:
    async def invoke(arguments: Mapping[str, Any], timeout: float, by: CalledBy) -> Any:
        fact = _read(dict(arguments) | {"call_id": by.call_id}, RunFact)
        return {"remembered": (await memory.remember(by.run, fact)).text}

    tags = {"type": "array", "items": {"type": "string"}, "description": "Words to find it by"}
    text = {"type": "string", "description": "One sentence that is understood without this conversation"}
    doc = "Remember a fact about the user or the work for later conversations."
    return Tool(REMEMBER, doc, _schema({"text": text, "tags": tags}, ["text"]), True, invoke)


def _recall(memory: RunMemory) -> Tool:
    async def invoke(arguments: Mapping[str, Any], timeout: float, by: CalledBy) -> Any:
        query = _read(arguments, RunQuery).query
        return [_shown(fact) for fact in await memory.recall(by.run, query)]

    query = {"type": "string", "description": "What you want to know, in the user's language"}
    doc = "Look up what you remember from earlier conversations."
    return Tool(RECALL_ID, doc, _schema({"query": query}, ["query"]), True, invoke)


def _shown(fact: Fact) -> dict[str, Any]:
    return {"text": fact.text, **({"tags": fact.tags} if fact.tags else {})}


def _schema(properties: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    wanted = list(required)
    return {"type": "object", "properties": dict(properties), "required": wanted, "additionalProperties": False}


def _read(arguments: Mapping[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(dict(arguments), kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error)) from None

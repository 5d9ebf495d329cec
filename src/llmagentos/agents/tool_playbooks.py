"""Playbooks as tools: a call is a job on nodes.

The job's key comes from the call, so a call that is made again after a crash finds its job and waits on. What a
model writes into a variable reaches Ansible, which evaluates templates in variables: text that looks like one is
refused, and variables are only those that the agent's definition declares, each within its schema.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from llmagentos.agents.slots import lent
from llmagentos.agents.tools import CalledBy, Tool
from llmagentos.api.agents import ToolUse
from llmagentos.core.errors import ConfigError, InvalidInput
from llmagentos.core.matching import TooSlow, matches

NODES = "nodes"
MOST_NODES = 200
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_GROUPS = frozenset({"all", "ungrouped"})
_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
_MOST_PATTERN = 4_000
"""Characters of text that a pattern is tried on."""


class PlaybookCall(msgspec.Struct, frozen=True, kw_only=True):
    """A job that an agent asks for."""

    bundle: str
    playbook: str
    nodes: list[str]
    vars: dict[str, Any]
    key: str
    """The same for the same call."""
    by: str
    timeout: float


RunPlaybook = Callable[[PlaybookCall], Awaitable[Any]]
"""Begins the job, or finds it, and waits for its end: what came of it. Raises what has the call fail."""


class PlaybookTools:
    """Has `run` run playbooks."""

    def __init__(self, run: RunPlaybook) -> None:
        self._run = run

    async def tools(self, use: ToolUse) -> Sequence[Tool]:
        """The one tool that a playbook's entry stands for. Raises `ConfigError`."""
        assert use.playbook is not None
        if use.bundle is None:
            raise ConfigError(f"the playbook {use.playbook} was not uploaded", hint="`llmctl apply -f` does it")
        if NODES in use.vars:
            raise ConfigError(f"a variable of {use.playbook} cannot be called {NODES!r} as an agent's tool")
        path = PurePosixPath(use.playbook)

        async def invoke(arguments: Mapping[str, Any], timeout: float, by: CalledBy) -> Any:
            call = PlaybookCall(
                bundle=str(use.bundle),
                playbook=path.name,
                nodes=use.nodes or _nodes(arguments.get(NODES)),
                vars=await asyncio.to_thread(_variables, use, arguments),
                key=f"run:{by.run}:{by.call_id}",
                by=f"run:{by.run}",
                timeout=timeout,
            )
            with lent():
                return await self._run(call)

        name = called(use)
        doc = use.doc or f"Run the playbook {path.name}" + (f" on {', '.join(use.nodes)}." if use.nodes else ".")
        return [Tool(name, doc, _parameters(use), True, invoke, tuple(use.examples))]


def called(use: ToolUse) -> str:
    """What the model calls the playbook."""
    return use.name or re.sub(r"[^A-Za-z0-9_-]", "-", PurePosixPath(str(use.playbook)).stem)[:64]


def _parameters(use: ToolUse) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if not use.nodes:
        properties[NODES] = {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": MOST_NODES,
            "description": "Names of the nodes to run it on",
        }
    properties |= use.vars
    required = [name for name, schema in properties.items() if "default" not in schema]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _nodes(given: Any) -> list[str]:
    names = given if isinstance(given, list) else []
    wrong = [n for n in names if not isinstance(n, str) or not _NODE.fullmatch(n) or n in _GROUPS]
    if not names or wrong or len(names) > MOST_NODES:
        raise InvalidInput(f"nodes must be 1 to {MOST_NODES} names of nodes, not {given!r}")
    return list(dict.fromkeys(names))


def _variables(use: ToolUse, arguments: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: schema["default"] for name, schema in use.vars.items() if "default" in schema}
    for name, value in arguments.items():
        if name == NODES:
            continue
        if name not in use.vars:
            raise InvalidInput(f"{name} is none of the variables: {', '.join(use.vars) or 'there are none'}")
        if _templated(value):
            raise InvalidInput(f"{name} must not have '{{{{', '{{%' or '{{#' in it")
        _fits_pattern(name, value, use.vars[name].get("pattern"))
        given[name] = value
    return given


def _templated(value: Any) -> bool:
    if isinstance(value, str):
        return _TEMPLATE.search(value) is not None
    if isinstance(value, Mapping):
        return any(map(_templated, value)) or any(map(_templated, value.values()))
    return isinstance(value, list) and any(map(_templated, value))


def _fits_pattern(name: str, value: Any, pattern: Any) -> None:
    """Patterns of schemas are not tried elsewhere, as schemas may be a stranger's; this one is of the definition."""
    if not isinstance(value, str) or not isinstance(pattern, str):
        return
    try:
        fits = len(value) <= _MOST_PATTERN and matches(pattern, value, whole=False)
    except TooSlow:
        raise InvalidInput(f"{name} cannot be checked: {pattern!r} takes too long for it") from None
    if not fits:
        raise InvalidInput(f"{name} must fit {pattern!r}")

"""Who may have a tool called: what the tool itself allows, and what the operator denies.

A run acts for whoever asked for it, or for the run that asked for it: what a person may not use, no agent
uses for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from llmagentos.agents.tools import Tool, Toolset


def patterns(deny: Mapping[str, Sequence[str]], caller: str) -> list[str]:
    """The patterns of tools that are denied to `caller`; `deny` has them by patterns of callers."""
    return sorted({tool for who, tools in deny.items() if fnmatchcase(caller, who) for tool in tools})


def denied(name: str, by: Iterable[str]) -> bool:
    """Whether one of the patterns `by` means the tool `name`."""
    return any(fnmatchcase(name, pattern) for pattern in by)


def permitted(tools: Toolset, caller: str, deny: Sequence[str]) -> Toolset:
    """What of `tools` the run may call: the model is not even told of the rest."""

    def may(tool: Tool) -> bool:
        allowed = not tool.options.allow or any(fnmatchcase(caller, who) for who in tool.options.allow)
        return allowed and not denied(tool.name, deny)

    known = [*tools.tools, *([tools.ground] if tools.ground is not None else [])]
    forbidden = frozenset(tool.name for tool in known if not may(tool))
    return replace(tools, tools=tuple(tool for tool in tools.tools if may(tool)), forbidden=tools.forbidden | forbidden)

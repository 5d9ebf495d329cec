"""Who may have a tool called: what the tool itself allows, and what the operator denies.

A run acts for whoever asked for it, or for the run that asked for it: what a person may not use, no agent
uses for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from llmagentos.agents import tool_playbooks
from llmagentos.agents.tools import Tool, Toolset
from llmagentos.api.agents import AgentSpec, ToolUse


def patterns(deny: Mapping[str, Sequence[str]], caller: str) -> list[str]:
    """The patterns of tools that are denied to `caller`; `deny` has them by patterns of callers."""
    return sorted({tool for who, tools in deny.items() if fnmatchcase(caller, who) for tool in tools})


def denied(name: str, by: Iterable[str]) -> bool:
    """Whether one of the patterns `by` means the tool `name`."""
    return any(fnmatchcase(name, pattern) for pattern in by)


def allowed(allow: Sequence[str], caller: str) -> bool:
    """Whether a tool that only the runs of `allow` may use (everybody's without any) is for those of `caller`."""
    return not allow or any(fnmatchcase(caller, who) for who in allow)


def granted(modules: Mapping[str, Sequence[str]], module: str, source: str) -> bool:
    """Whether the agents of `module` may use what the server has as `source` (`ToolUse.source`)."""
    return denied(source, patterns(modules, module))


def entry_of(spec: AgentSpec, name: str) -> ToolUse | None:
    """The entry of the definition that the tool `name` is of.

    None for functions and memory, and for remote agents without a `name`: those are called what their card says.
    """
    return next((use for use in spec.tools if _is_of(name, use)), None)


def _is_of(name: str, use: ToolUse) -> bool:
    match use.kind:
        case "mcp":
            server, tool = name[: len(str(use.mcp)) + 1], name[len(str(use.mcp)) + 1 :]
            return server == f"{use.mcp}." and (not use.only or tool in use.only)
        case "playbook":
            return name == tool_playbooks.called(use)
        case "agent":
            return name == (use.name or use.agent)
        case "a2a":
            return name == use.name
        case _:
            return name == use.service


def permitted(tools: Toolset, caller: str, deny: Sequence[str]) -> Toolset:
    """What of `tools` the run may call: the model is not even told of the rest."""

    def may(tool: Tool) -> bool:
        return allowed(tool.options.allow, caller) and not denied(tool.name, deny)

    known = [*tools.tools, *tools.hidden, *([tools.ground] if tools.ground is not None else [])]
    forbidden = frozenset(tool.name for tool in known if not may(tool))
    return replace(tools, tools=tuple(tool for tool in tools.tools if may(tool)), forbidden=tools.forbidden | forbidden)

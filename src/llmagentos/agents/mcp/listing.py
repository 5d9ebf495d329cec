"""The tools that an MCP server says it has: from a stranger, so everything is checked and bounded. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmagentos.agents.strangers import plain_text
from llmagentos.api.mcp import McpTool

MOST_TOOLS = 200
MOST_DOC = 4_000
MOST_SCHEMA = 32 * 1024
"""Bytes of JSON of one tool's parameters: they stand in every prompt."""
DEEPEST_SCHEMA = 24
# Names as the specification recommends them (2025-11-25, "Tool Names").
_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")


class Listing(msgspec.Struct, frozen=True):
    """What can be used of a server's tools, and what was left out and why."""

    tools: list[McpTool]
    refused: list[str] = []


def checked(offered: Sequence[Mapping[str, Any]]) -> Listing:
    """`offered` as plain values: `name`, `description` and `inputSchema` of each tool."""
    tools: dict[str, McpTool] = {}
    refused: list[str] = []
    for number, entry in enumerate(offered, 1):
        if number > MOST_TOOLS:
            refused.append(f"{len(offered) - MOST_TOOLS} tools after the first {MOST_TOOLS}")
            break
        found = _tool(entry, tools)
        if isinstance(found, McpTool):
            tools[found.name] = found
        else:
            refused.append(f"tool {number} ({str(entry.get('name'))[:80]!r}): {found}")
    return Listing(list(tools.values()), refused)


def _tool(entry: Mapping[str, Any], known: Mapping[str, McpTool]) -> McpTool | str:
    """The tool, or why it is none."""
    name, schema = entry.get("name"), entry.get("inputSchema")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "its name is not of 1 to 128 letters, digits, '_', '-', '.' or '/'"
    if name in known:
        return "another tool has its name"
    if not isinstance(schema, Mapping):
        return "it has no input schema"
    if schema.get("type", "object") != "object":
        return "its input schema is not of an object"
    if _depth(schema) > DEEPEST_SCHEMA:
        return f"its input schema is nested deeper than {DEEPEST_SCHEMA}"
    try:
        size = len(msgspec.json.encode(schema))
    except (msgspec.MsgspecError, TypeError, ValueError):
        return "its input schema is not plain JSON"
    if size > MOST_SCHEMA:
        return f"its input schema has {size} bytes, more than {MOST_SCHEMA}"
    if _leads_outside(schema):
        return "its input schema refers to another document"
    return McpTool(name, plain_text(entry.get("description"), MOST_DOC), {**schema, "type": "object"})


def _depth(part: Any) -> int:
    """How deep `part` is nested, counted no further than needed."""
    deepest, level = 0, [part]
    while level and deepest <= DEEPEST_SCHEMA:
        deepest += 1
        inner = [item.values() if isinstance(item, Mapping) else item for item in level if _nests(item)]
        level = [value for values in inner for value in values]
    return deepest


def _nests(item: Any) -> bool:
    return isinstance(item, Mapping | list)


def _leads_outside(part: Any) -> bool:
    """Whether a reference points anywhere but into the schema itself: nothing is fetched for a stranger."""
    if isinstance(part, list):
        return any(map(_leads_outside, part))
    if not isinstance(part, Mapping):
        return False
    return any(
        (key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"))
        or _leads_outside(value)
        for key, value in part.items()
    )

"""What a tool of an MCP server returned, as plain JSON values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmagentos.agents.strangers import plain_text
from llmagentos.core.errors import ServiceError

MOST_PARTS = 200
_MOST_ERROR = 4_000


class McpToolFailed(ServiceError):
    """The tool said that it failed (`isError`)."""

    code = "mcp_tool_failed"


def plain(result: Mapping[str, Any], tool: str) -> Any:
    """The value of a `CallToolResult` on the wire: its structured content, or else its text, or a list of its parts.

    Raises `McpToolFailed` for one with `isError`.
    """
    content = result.get("content")
    parts = [_part(part) for part in content[:MOST_PARTS]] if isinstance(content, Sequence) else []
    if result.get("isError"):
        told = "\n".join(part for part in parts if isinstance(part, str))
        raise McpToolFailed(plain_text(told, _MOST_ERROR) or "no reason was given", tool=tool)
    if result.get("structuredContent") is not None:
        return result["structuredContent"]
    if all(isinstance(part, str) for part in parts):
        return "\n".join(parts)
    return parts[0] if len(parts) == 1 else parts


def _part(part: Any) -> Any:
    """Text as it is; of what is no text, what it is and how long: a model cannot read its bytes."""
    if not isinstance(part, Mapping):
        return str(part)
    kind = part.get("type")
    if kind == "text":
        return str(part.get("text", ""))
    if kind == "resource":
        resource = part.get("resource")
        inner = resource if isinstance(resource, Mapping) else {}
        if isinstance(inner.get("text"), str):
            return {"uri": inner.get("uri"), "text": inner["text"]}
        return {"uri": inner.get("uri"), "type": inner.get("mimeType"), "base64_characters": _length(inner.get("blob"))}
    if kind == "resource_link":
        return {"uri": part.get("uri"), "name": part.get("name")}
    return {"type": part.get("mimeType") or kind, "base64_characters": _length(part.get("data"))}


def _length(data: Any) -> int:
    return len(data) if isinstance(data, str) else 0

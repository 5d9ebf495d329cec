"""A request of the Responses API as a chat request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmagentos.api.llm import ChatRequest, Message
from llmagentos.api.responses import Item, ResponsesRequest
from llmagentos.core.errors import InvalidInput
from llmagentos.llm.responses.items import messages

_LOGPROBS = "message.output_text.logprobs"
_INCLUDED = (_LOGPROBS, "reasoning.encrypted_content")
"""What may be asked for beside the answer; encrypted thoughts there are none."""


def items_of(request: ResponsesRequest) -> list[Item]:
    """The input as items."""
    if isinstance(request.input, str):
        return [{"type": "message", "role": "user", "content": request.input}]
    return request.input


def chat_request(request: ResponsesRequest, earlier: Sequence[Item]) -> ChatRequest:
    """The chat that `request` means after the items of `earlier` responses. Raises `InvalidInput`."""
    head = [Message("system", request.instructions)] if request.instructions else []
    chat = head + messages([*earlier, *items_of(request)])
    if not chat:
        raise InvalidInput("input holds no item", param="input")
    tools, choice = _tools(request)
    logprobs = _LOGPROBS in _included(request) or bool(request.top_logprobs)
    return ChatRequest(
        chat,
        request.model,
        max_completion_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        response_format=_format(request),
        verbosity=request.text.verbosity if request.text else None,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=request.parallel_tool_calls if tools else None,
        logprobs=True if logprobs else None,
        top_logprobs=request.top_logprobs,
        reasoning_effort=request.reasoning.effort if request.reasoning else None,
        prompt_cache_key=request.prompt_cache_key,
        safety_identifier=request.safety_identifier,
        service_tier=request.service_tier,
        user=request.user,
    )


def _included(request: ResponsesRequest) -> list[str]:
    for name in request.include or []:
        if name not in _INCLUDED:
            raise InvalidInput(f"include: {name[:80]!r} is not understood here", param="include")
    return request.include or []


def _format(request: ResponsesRequest) -> dict[str, Any] | None:
    asked = request.text.format if request.text else None
    if asked is None or asked.get("type") == "text":
        return None
    if asked.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {k: v for k, v in asked.items() if k != "type"}}
    if asked.get("type") == "json_object":
        return {"type": "json_object"}
    raise InvalidInput("text.format.type must be text, json_object or json_schema", param="text.format.type")


def _tools(request: ResponsesRequest) -> tuple[list[dict[str, Any]] | None, str | dict[str, Any] | None]:
    """The functions, and which of them to call."""
    tools = {}
    for number, tool in enumerate(request.tools or []):
        if tool.get("type") != "function" or not isinstance(tool.get("name"), str):
            raise InvalidInput(
                f"tools[{number}] is of type {tool.get('type')!r}: only functions, with a name, can be called here",
                hint="tools of this system (services, MCP servers, playbooks) are given to agents: docs/agents.md",
                param=f"tools[{number}].type",
            )
        known = {k: tool[k] for k in ("name", "description", "parameters", "strict") if tool.get(k) is not None}
        tools[tool["name"]] = {"type": "function", "function": known}
    choice = request.tool_choice
    if isinstance(choice, dict):
        if choice.get("type") == "function" and choice.get("name") in tools:
            return list(tools.values()), {"type": "function", "function": {"name": choice["name"]}}
        if choice.get("type") == "allowed_tools" and isinstance(choice.get("tools"), list):
            named = {tool.get("name") for tool in choice["tools"] if isinstance(tool, dict)}
            return [tool for name, tool in tools.items() if name in named], choice.get("mode", "auto")
        raise InvalidInput("tool_choice names no function of tools", param="tool_choice")
    return list(tools.values()) or None, choice

"""The loop's model calls in the terms of OpenAI's API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from llmagentos.agents import model as prompts
from llmagentos.agents.model import Prompt, Reply
from llmagentos.api.llm import ChatCompletion, ChatRequest, Message, Waits
from llmagentos.api.runs import ToolRequest

MAX_CALLS = 128
"""Tool calls of one reply that are looked at."""
EMBEDDING_MODEL = "default"
"""The embedding model that the gateway offers by default."""


def _message(message: prompts.Message) -> Message:
    calls = [
        {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call_id, call in message.calls
    ]
    content: str | list[dict[str, Any]] | None = message.content if message.content or not calls else None
    if message.images:
        pictures = [{"type": "image_url", "image_url": {"url": url}} for url in message.images]
        content = [{"type": "text", "text": message.content}, *pictures]
    return Message(message.role, content, tool_calls=calls or None, tool_call_id=message.call_id)


def chat_request(prompt: Prompt) -> ChatRequest:
    """`prompt` as a chat completion; a schema goes as `response_format`, which engines enforce with a grammar."""
    wanted: dict[str, Any] | None = None
    if prompt.schema is not None:
        wanted = {"type": "json_schema", "json_schema": {"name": "reply", "schema": prompt.schema}}
    return ChatRequest(
        [_message(message) for message in prompt.messages],
        prompt.model,
        max_tokens=prompt.max_tokens,
        temperature=prompt.temperature,
        response_format=wanted,
        tools=list(prompt.tools) or None,
    )


def reply(found: ChatCompletion) -> Reply:
    """The loop's view of a chat completion."""
    waits = found.waits if isinstance(found.waits, Waits) else Waits(0.0, None)
    choice = found.choices[0] if found.choices else None
    asked = choice.message.tool_calls if choice is not None else UNSET
    return Reply(
        (choice.message.content or "") if choice is not None else "",
        found.usage.prompt_tokens,
        found.usage.completion_tokens,
        waits.queue_s,
        waits.ttft_s if waits.ttft_s is not None else 0.0,
        choice is not None and choice.finish_reason == "length",
        tuple(_requests(asked)) if isinstance(asked, list) else (),
    )


def _requests(calls: list[dict[str, Any]]) -> Iterator[ToolRequest]:
    """The tools that a reply asks for; what engines add is dropped, what they leave out is empty."""
    for call in calls[:MAX_CALLS]:
        function = call.get("function")
        if isinstance(function, dict):
            arguments = function.get("arguments")
            text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
            yield ToolRequest(str(function.get("name") or ""), text)

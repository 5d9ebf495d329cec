"""The loop's model calls in the terms of OpenAI's API."""

from __future__ import annotations

from typing import Any

from llmagentos.agents.model import Prompt, Reply
from llmagentos.api.llm import ChatRequest, Message, Usage, Waits

EMBEDDING_MODEL = "default"
"""The embedding model that the gateway offers by default."""


def chat_request(prompt: Prompt) -> ChatRequest:
    """`prompt` as a chat completion; a schema goes as `response_format`, which engines enforce with a grammar."""
    wanted: dict[str, Any] | None = None
    if prompt.schema is not None:
        wanted = {"type": "json_schema", "json_schema": {"name": "reply", "schema": prompt.schema}}
    return ChatRequest(
        [Message(message.role, message.content) for message in prompt.messages],
        prompt.model,
        max_tokens=prompt.max_tokens,
        temperature=prompt.temperature,
        response_format=wanted,
    )


def reply(text: str, usage: Usage, waits: Waits, *, cut: bool) -> Reply:
    """The loop's view of a chat completion."""
    first = waits.ttft_s if waits.ttft_s is not None else 0.0
    return Reply(text, usage.prompt_tokens, usage.completion_tokens, waits.queue_s, first, cut)

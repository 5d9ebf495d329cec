"""AG-UI on the wire: what a client sends to have an agent run (`RunAgentInput`)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Id = Annotated[str, Meta(min_length=1, max_length=200)]


class InputMessage(msgspec.Struct, frozen=True):
    """A message of the conversation; keys beside these are the client's own."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    id: str = ""


class RunAgentInput(msgspec.Struct, frozen=True, rename="camel"):
    """A conversation (`threadId`) and the client's own name for this run of it. Keys beside these are left alone."""

    thread_id: Id
    run_id: Id
    messages: Annotated[list[InputMessage], Meta(min_length=1, max_length=10_000)]
    state: Any = None
    tools: list[dict[str, Any]] = []
    """Of the client's; the agent's own definition says what it may call."""
    context: list[dict[str, Any]] = []

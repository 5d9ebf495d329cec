"""What the run loop asks of a model, whoever carries it out: the gateway in the server, or its API from a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from llmagentos.api.runs import Purpose, ToolRequest

IMAGE_TOKENS = 1000
"""What a picture is counted as: engines take some 85 to 1,500 tokens for one."""


class Message(msgspec.Struct, frozen=True):
    """One message of the prompt."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: tuple[tuple[str, ToolRequest], ...] = ()
    """Tool calls that the assistant asked for, each with the id that its result refers to."""
    call_id: str | None = None
    """The call whose result this is."""
    images: tuple[str, ...] = ()
    """`data:` URLs of pictures that belong to it."""


class Prompt(msgspec.Struct, frozen=True):
    """One call of a chat model."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    purpose: Purpose
    live: bool = True
    """Whether those who watch the run may read the reply while it is being written."""
    schema: dict[str, Any] | None = None
    """JSON Schema that the reply must fit."""
    temperature: float | None = None
    """None leaves it to the model."""
    tools: tuple[dict[str, Any], ...] = ()
    """Tools that the model may ask for, in the form of OpenAI's API."""
    covers: int = 0
    """With `compact`: so many turns of the session give way to the reply."""

    @property
    def gate_purpose(self) -> Literal["answer", "tool"]:
        """What the gateway is told: it shows `answer` calls to those who watch the run."""
        return "answer" if self.live and self.purpose is Purpose.ANSWER else "tool"

    @property
    def estimate(self) -> int:
        """About how many tokens the prompt has. Tokenizers give 3 to 5 bytes of English a token, fewer of Chinese."""
        texts = [message.content for message in self.messages]
        texts += [call.name + call.arguments for message in self.messages for _, call in message.calls]
        offered = len(msgspec.json.encode(self.tools)) // 3 if self.tools else 0
        pictures = sum(len(message.images) for message in self.messages) * IMAGE_TOKENS
        return offered + pictures + sum(8 + len(text.encode()) // 3 for text in texts)


class Reply(msgspec.Struct, frozen=True):
    """What a chat model said, and what it took. Times in seconds."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    queue_s: float = 0.0
    ttft_s: float = 0.0
    cut: bool = False
    calls: tuple[ToolRequest, ...] = ()
    """Tools that it asks for."""


class Models(Protocol):
    """Calls to models on behalf of a run; each raises an `LLMAgentOSError` when it fails."""

    async def complete(self, prompt: Prompt, *, run: str, timeout: float) -> Reply:
        """The reply to `prompt`; an answer that is `live` also goes out to whoever watches the run, as it comes."""
        ...

    async def embed(
        self, texts: Sequence[str], *, kind: Literal["query", "passage"], run: str, timeout: float
    ) -> list[list[float]]:
        """A vector for each text."""
        ...

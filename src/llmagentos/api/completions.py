"""OpenAI's older text completions on the wire: a prompt goes on, without roles.

As in `api.llm` a request names every field that is understood, and an unknown one is refused.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from llmagentos.api.llm import StreamOptions, Usage

MOST_PROMPTS = 128


class CompletionRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`POST /v1/completions`. Several prompts are several calls, answered under one id."""

    prompt: str | Annotated[list[str], Meta(min_length=1, max_length=MOST_PROMPTS)]
    model: str = "default"
    max_tokens: Annotated[int, Meta(ge=1)] = 16
    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: int | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repeat_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    timings_per_token: bool | None = None
    """llama.cpp: tell with each piece how many tokens it makes."""
    user: str | None = None

    @property
    def prompts(self) -> list[str]:
        """The prompt as a list."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def choices(self) -> int:
        """How many answers to each prompt are asked for."""
        return self.n or 1

    @property
    def limit(self) -> int:
        """The most tokens to generate for each answer."""
        return self.max_tokens


class CompletionLogprobs(msgspec.Struct, frozen=True):
    """Of each token how likely it was, and where in the text it begins."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []
    text_offset: list[int] = []


class CompletionChoice(msgspec.Struct, frozen=True):
    """One text, or a piece of it."""

    text: str
    index: int
    finish_reason: str | None = None
    logprobs: CompletionLogprobs | None = None


class Completion(msgspec.Struct, frozen=True):
    """A whole answer, or a piece of a streamed one."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
    object: str = "text_completion"


class TextPiece(msgspec.Struct, frozen=True):
    """What an engine's piece adds to one text."""

    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None

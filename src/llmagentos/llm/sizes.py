"""How many tokens a call will take, guessed before it starts: what fairness, limits and budgets reserve."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from llmagentos.api.completions import CompletionRequest
from llmagentos.api.llm import ChatRequest, EmbeddingRequest, Usage

_SMOOTHING = 0.1
_BYTES_PER_TOKEN = 4.0  # English has 4 letters of 1 byte, Chinese about 1.3 characters of 3 bytes to a token
_LEAST_BYTES, _MOST_BYTES = 1.0, 12.0
_TYPICAL_OUT = 128.0
_BEGINNING = 4096


@dataclass(frozen=True, slots=True)
class Size:
    """Expected tokens; `most_out` is what the caller allows, None when it does not say."""

    tokens_in: int
    tokens_out: int
    most_out: int | None = None


class Sizes:
    """Guesses for one model, which learn from what its calls took."""

    def __init__(self) -> None:
        self._bytes_per_token = _BYTES_PER_TOKEN
        self._typical_out = _TYPICAL_OUT

    def of(self, length: int, most_out: int | None) -> Size:
        """A prompt of `length` bytes."""
        tokens_out = round(self._typical_out) if most_out is None else most_out
        return Size(max(1, round(length / self._bytes_per_token)), tokens_out, most_out)

    def observe(self, length: int, usage: Usage) -> None:
        """What a call with a prompt of `length` bytes took."""
        if usage.prompt_tokens > 0 and length > 0:
            seen = min(_MOST_BYTES, max(_LEAST_BYTES, length / usage.prompt_tokens))
            self._bytes_per_token += _SMOOTHING * (seen - self._bytes_per_token)
        self._typical_out += _SMOOTHING * (usage.completion_tokens - self._typical_out)


def length_of(request: ChatRequest | CompletionRequest | EmbeddingRequest) -> int:
    """Bytes of what the model is given to read."""
    if isinstance(request, EmbeddingRequest):
        return sum(_bytes(text) for text in request.texts)
    if isinstance(request, CompletionRequest):
        return sum(_bytes(text) for text in request.prompts)
    total = sum(_bytes(m.content) if isinstance(m.content, str) else _json(m) for m in request.messages)
    return total + 8 * len(request.messages) + (_json(request.tools) if request.tools else 0)


def prefix_of(request: ChatRequest | CompletionRequest | EmbeddingRequest, run_id: str | None) -> str | None:
    """What calls have in common whose prompts begin alike: a key of the caller's, the run, or the first message."""
    if isinstance(request, EmbeddingRequest):
        return None
    if isinstance(request, CompletionRequest):
        return run_id or hashlib.blake2b(request.prompts[0][:_BEGINNING].encode(), digest_size=12).hexdigest()
    if request.prompt_cache_key or run_id:
        return request.prompt_cache_key or run_id
    return hashlib.blake2b(msgspec.json.encode(request.messages[0]), digest_size=12).hexdigest()


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _json(value: object) -> int:
    return len(msgspec.json.encode(value))

"""The pieces of a streamed answer as engines send them: of a chat, and of a text that goes on."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from llmagentos.api.completions import TextPiece
from llmagentos.api.llm import ChatChunk, ChunkChoice, Delta, Timings, Usage


class Line(ChatChunk, frozen=True):
    """A chunk, or the error that some servers send in its place."""

    error: Any = None


class _TextLine(msgspec.Struct, frozen=True):
    choices: list[TextPiece] = []
    usage: Usage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET
    error: Any = None


of_chat = msgspec.json.Decoder(Line).decode
_TEXT = msgspec.json.Decoder(_TextLine)


def of_text(data: bytes) -> Line:
    """A piece of a text in the form of a chat's. Raises `msgspec.DecodeError`."""
    line = _TEXT.decode(data)
    choices = [
        ChunkChoice(piece.index, Delta(content=piece.text or None), piece.finish_reason, piece.logprobs)
        for piece in line.choices
    ]
    return Line(choices=choices, usage=line.usage, timings=line.timings, error=line.error)

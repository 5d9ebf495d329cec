"""Texts of any length and shape, made fit for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmagentos.server.console import words

MAX_TEXT = 20_000
_SHORT_TEXT = 240
_SHORT_LINES = 4


@dataclass(frozen=True, slots=True)
class Block:
    """A preformatted text; a long one is folded behind its label."""

    label: str
    text: str
    short: bool


def block(label: str, text: str) -> Block:
    """`text` under `label`, cut at `MAX_TEXT` characters."""
    text = text.rstrip()
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]} …"
    return Block(label, text, len(text) <= _SHORT_TEXT and text.count("\n") < _SHORT_LINES)


def shown(value: Any) -> str:
    """A JSON value as people read it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else words.pretty(value)


def record(value: Any) -> list[tuple[str, str]]:
    """A record as names and values; what is no object has one nameless value."""
    fields = value.items() if isinstance(value, dict) else [("", value)]
    return [(str(name), _inline(item)) for name, item in fields if item not in (None, "", [], {})]


def _inline(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value))
    text = shown(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} …"


def first_line(text: str, most: int = 200) -> str:
    """The first line that says something, at most `most` characters of it."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= most else f"{line[:most]} …"

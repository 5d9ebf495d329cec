"""A whole answer out of its chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from msgspec import UNSET

from llmagentos.api.llm import AnswerMessage, ChatChunk, ChatCompletion, Choice, ChunkChoice, Usage


async def assemble(chunks: AsyncIterator[ChatChunk]) -> ChatCompletion:
    """The completion that `chunks` make up."""
    last, usage, answers = ChatChunk(), Usage(), {0: _Answer()}
    async for chunk in chunks:
        last = chunk
        if isinstance(chunk.usage, Usage):
            usage = chunk.usage
        for choice in chunk.choices:
            answers.setdefault(choice.index, _Answer()).add(choice)
    choices = [answers[index].whole(index) for index in sorted(answers)]
    return ChatCompletion(last.id, last.created, last.model, choices, usage, last.waits)


class _Answer:
    """One choice."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._finish: str | None = None

    def add(self, choice: ChunkChoice) -> None:
        delta = choice.delta
        self._finish = choice.finish_reason or self._finish
        self._text.append(delta.content or "")
        self._reasoning.append(delta.reasoning_content or "")
        self._refusal.append(delta.refusal or "")
        for part in delta.tool_calls or []:
            _merge(self._calls.setdefault(int(part.get("index") or 0), {}), part)
        for name, found in (choice.logprobs or {}).items():
            self._logprobs.setdefault(name, []).extend(found or [])

    def whole(self, index: int) -> Choice:
        calls = [self._calls[number] for number in sorted(self._calls)]
        text = "".join(self._text)
        message = AnswerMessage(
            content=text if text or not calls else None,
            refusal="".join(self._refusal) or None,
            tool_calls=calls or UNSET,
            reasoning_content="".join(self._reasoning) or UNSET,
        )
        return Choice(message, self._finish, index, logprobs=self._logprobs or None)


def _merge(call: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a piece of a tool call: its arguments come in pieces, its id and name once."""
    for key, value in part.items():
        if key == "function" and isinstance(value, dict):
            function = call.setdefault("function", {"name": "", "arguments": ""})
            function["name"] = value.get("name") or function["name"]
            function["arguments"] += value.get("arguments") or ""
        elif key != "index" and value is not None:
            call[key] = value

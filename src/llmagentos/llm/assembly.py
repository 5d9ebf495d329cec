"""A whole answer out of its chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from msgspec import UNSET

from llmagentos.api.llm import AnswerMessage, ChatChunk, ChatCompletion, Choice, Delta, Usage


async def assemble(chunks: AsyncIterator[ChatChunk]) -> ChatCompletion:
    """The completion that `chunks` make up."""
    answer = _Answer()
    async for chunk in chunks:
        answer.add(chunk)
    return answer.whole()


class _Answer:
    def __init__(self) -> None:
        self._last = ChatChunk()
        self._usage = Usage()
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._finish: str | None = None

    def add(self, chunk: ChatChunk) -> None:
        self._last = chunk
        if isinstance(chunk.usage, Usage):
            self._usage = chunk.usage
        for choice in chunk.choices:
            self._finish = choice.finish_reason or self._finish
            self._delta(choice.delta)
            for name, found in (choice.logprobs or {}).items():
                self._logprobs.setdefault(name, []).extend(found or [])

    def _delta(self, delta: Delta) -> None:
        self._text.append(delta.content or "")
        self._reasoning.append(delta.reasoning_content or "")
        self._refusal.append(delta.refusal or "")
        for part in delta.tool_calls or []:
            _merge(self._calls.setdefault(int(part.get("index") or 0), {}), part)

    def whole(self) -> ChatCompletion:
        calls = [self._calls[index] for index in sorted(self._calls)]
        text = "".join(self._text)
        message = AnswerMessage(
            content=text if text or not calls else None,
            refusal="".join(self._refusal) or None,
            tool_calls=calls or UNSET,
            reasoning_content="".join(self._reasoning) or UNSET,
        )
        choice = Choice(message, self._finish, logprobs=self._logprobs or None)
        last = self._last
        return ChatCompletion(last.id, last.created, last.model, [choice], self._usage, last.waits)


def _merge(call: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a piece of a tool call: its arguments come in pieces, its id and name once."""
    for key, value in part.items():
        if key == "function" and isinstance(value, dict):
            function = call.setdefault("function", {"name": "", "arguments": ""})
            function["name"] = value.get("name") or function["name"]
            function["arguments"] += value.get("arguments") or ""
        elif key != "index" and value is not None:
            call[key] = value

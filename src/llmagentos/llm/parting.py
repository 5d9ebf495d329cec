"""Answers that a pause stopped: what the next call for them goes on with, and what of a new answer was heard before."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import msgspec
from msgspec.structs import replace

from llmagentos.api.llm import ChatChunk, ChunkChoice, Usage
from llmagentos.api.retelling import Retelling, Retold
from llmagentos.core.errors import Conflict
from llmagentos.llm.generation import Asking, Part

_MOST = 1_000
_MOST_BYTES = 16 * 1024 * 1024

_Key = tuple[str, bytes]


class AnswerChanged(Conflict):
    """An answer that a pause cut off in the middle came out otherwise when it was made anew."""

    code = "answer_changed"


class Parted:
    """Beginnings of answers by run and request. The oldest are forgotten: their answers are made from the beginning."""

    def __init__(self) -> None:
        self._parts: OrderedDict[_Key, tuple[Part, Usage]] = OrderedDict()
        self._bytes = 0

    def put(self, run_id: str, model: str, request: Asking, part: Part, taken: Usage) -> None:
        """The run's next call of `model` with `request` goes on with `part`, for which `taken` is paid."""
        key = _key(run_id, model, request)
        self._drop(key)
        self._parts[key] = part, taken
        self._bytes += _size(part)
        while self._parts and (len(self._parts) > _MOST or self._bytes > _MOST_BYTES):
            self._drop(next(iter(self._parts)))

    def take(self, run_id: str, model: str, request: Asking) -> tuple[Part, Usage] | None:
        """What there is of the answer, once."""
        return self._drop(_key(run_id, model, request)) if self._parts else None

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        for key in [key for key in self._parts if key[0] == run_id]:
            self._drop(key)

    def _drop(self, key: _Key) -> tuple[Part, Usage] | None:
        found = self._parts.pop(key, None)
        if found is not None:
            self._bytes -= _size(found[0])
        return found


def _key(run_id: str, model: str, request: Asking) -> _Key:
    return run_id, hashlib.sha256(msgspec.json.encode([model, request])).digest()


def _size(part: Part) -> int:
    return len(part.text.encode("utf-8", "surrogatepass"))


class Heard:
    """What was passed on of a stream. When the answer is made anew only what goes beyond it is."""

    def __init__(self) -> None:
        self._id = ""
        self._texts: dict[tuple[int, Any], Retelling] = {}
        self._anew = False

    def passed(self, chunk: ChatChunk) -> ChatChunk | None:
        """The chunk as it is to be passed on, None for one that adds nothing. Raises `AnswerChanged`."""
        self._id = self._id or chunk.id
        chunk = replace(chunk, id=self._id)
        if not chunk.choices:
            return chunk
        choices = [new for choice in chunk.choices if (new := self._choice(choice)) is not None]
        return replace(chunk, choices=choices) if choices else None

    def again(self) -> None:
        """The answer is made anew: what comes from now on begins at its beginning."""
        self._anew = True
        for text in self._texts.values():
            text.again()

    def _choice(self, choice: ChunkChoice) -> ChunkChoice | None:
        index, delta = choice.index, choice.delta
        told = {
            name: self._new((index, name), text)
            for name in ("content", "reasoning_content", "refusal")
            if (text := getattr(delta, name))
        }
        calls = [call for part in delta.tool_calls or [] if (call := self._call(index, part)) is not None]
        if not self._anew:
            return choice
        if choice.finish_reason is not None and any(text.left for key, text in self._texts.items() if key[0] == index):
            raise _changed()
        if not (any(told.values()) or calls or choice.finish_reason is not None or choice.logprobs):
            return None
        return replace(choice, delta=replace(delta, **told, tool_calls=calls or None))

    def _call(self, index: int, part: dict[str, Any]) -> dict[str, Any] | None:
        """A piece of a call of a tool; its id and name go with the first one."""
        function = part.get("function") or {}
        key = (index, ("tool", part.get("index") or 0))
        known = key in self._texts
        arguments = self._new(key, function.get("arguments") or "")
        if not known:
            return part
        return {"index": key[1][1], "function": {"arguments": arguments}} if arguments else None

    def _new(self, key: tuple[int, Any], text: str) -> str:
        try:
            return self._texts.setdefault(key, Retelling()).told(text)
        except Retold:
            raise _changed() from None


def _changed() -> AnswerChanged:
    return AnswerChanged("after a pause the model answered otherwise than before", hint="ask again")

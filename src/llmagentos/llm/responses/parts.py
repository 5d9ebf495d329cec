"""The items of an answer as they grow: what each piece adds, and the events that tell of it."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from llmagentos.api.responses import (
    Event,
    ItemEvent,
    ItemStatus,
    OutputFunctionCall,
    OutputItem,
    OutputMessage,
    OutputReasoning,
    OutputRefusal,
    OutputText,
    Part,
    PartEvent,
    PieceEvent,
    ReasoningText,
)

Said = Literal["output_text", "refusal", "reasoning_text"]


class Numbers:
    """Numbers of events in their order."""

    def __init__(self) -> None:
        self._next = -1

    def __call__(self) -> int:
        self._next += 1
        return self._next


class Growing(Protocol):
    """An item that is not complete."""

    def item(self, status: ItemStatus) -> OutputItem:
        """The item as far as it is."""
        ...

    def end(self, status: ItemStatus) -> list[Event]:
        """It is complete, or ends here."""
        ...


class Talk:
    """A message or what was thought: parts of text one after the other."""

    def __init__(self, numbers: Numbers, item_id: str, index: int, *, thought: bool) -> None:
        self._numbers = numbers
        self._id = item_id
        self._index = index
        self._thought = thought
        self._parts: list[Part] = []
        self._kind: Said | None = None
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    def begin(self) -> list[Event]:
        """The item is there, still empty."""
        return [ItemEvent("response.output_item.added", self._numbers(), self._index, self.item("in_progress"))]

    def add(self, kind: Said, piece: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        """A piece of text of the part under way, or of a new one when it is of another kind."""
        events: list[Event] = []
        if kind != self._kind:
            events += self._end_part()
            self._kind = kind
            events.append(self._part_event("added", _part(kind, "", [])))
        self._pieces.append(piece)
        self._logprobs += logprobs
        told = {"logprobs": logprobs} if kind == "output_text" else {}
        events.append(self._piece_event(kind, "delta", delta=piece, **told))
        return events

    def item(self, status: ItemStatus) -> OutputItem:
        """See `Growing.item`."""
        parts: list[Any] = [*self._parts, *([self._part()] if self._kind else [])]
        if self._thought:
            return OutputReasoning(self._id, status, parts)
        return OutputMessage(self._id, status, parts)

    def end(self, status: ItemStatus) -> list[Event]:
        """See `Growing.end`."""
        done = self._end_part()
        return [*done, ItemEvent("response.output_item.done", self._numbers(), self._index, self.item(status))]

    def _end_part(self) -> list[Event]:
        if self._kind is None:
            return []
        part, kind = self._part(), self._kind
        if isinstance(part, OutputText):
            done = self._piece_event(kind, "done", text=part.text, logprobs=part.logprobs)
        elif isinstance(part, OutputRefusal):
            done = self._piece_event(kind, "done", refusal=part.refusal)
        else:
            done = self._piece_event(kind, "done", text=part.text)
        ended = self._part_event("done", part)
        self._parts.append(part)
        self._kind, self._pieces, self._logprobs = None, [], []
        return [done, ended]

    def _part(self) -> Part:
        assert self._kind is not None
        return _part(self._kind, "".join(self._pieces), self._logprobs)

    def _part_event(self, what: str, part: Part) -> PartEvent:
        place = (self._id, self._index, len(self._parts))
        return PartEvent(f"response.content_part.{what}", self._numbers(), *place, part)

    def _piece_event(self, kind: Said, what: str, **told: Any) -> PieceEvent:
        place = (self._id, self._index, len(self._parts))
        return PieceEvent(f"response.{kind}.{what}", self._numbers(), *place, **told)


class FunctionCall:
    """A call of a function, whose arguments come in pieces."""

    def __init__(self, numbers: Numbers, item_id: str, index: int, call_id: str, name: str) -> None:
        self._numbers = numbers
        self._id = item_id
        self._index = index
        self._call_id = call_id
        self._name = name
        self._pieces: list[str] = []

    def begin(self) -> list[Event]:
        """The item is there, its arguments are not."""
        return [ItemEvent("response.output_item.added", self._numbers(), self._index, self.item("in_progress"))]

    def add(self, arguments: str) -> list[Event]:
        """A piece of the arguments."""
        self._pieces.append(arguments)
        what = "response.function_call_arguments.delta"
        return [PieceEvent(what, self._numbers(), self._id, self._index, delta=arguments)]

    def item(self, status: ItemStatus) -> OutputFunctionCall:
        """See `Growing.item`."""
        return OutputFunctionCall(self._id, status, self._call_id, self._name, "".join(self._pieces))

    def end(self, status: ItemStatus) -> list[Event]:
        """See `Growing.end`."""
        item, what = self.item(status), "response.function_call_arguments.done"
        done = PieceEvent(what, self._numbers(), self._id, self._index, arguments=item.arguments, name=self._name)
        return [done, ItemEvent("response.output_item.done", self._numbers(), self._index, item)]


def _part(kind: Said, text: str, logprobs: list[dict[str, Any]]) -> Part:
    if kind == "output_text":
        return OutputText(text, [], list(logprobs))
    return OutputRefusal(text) if kind == "refusal" else ReasoningText(text)

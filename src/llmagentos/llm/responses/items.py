"""Items of a Responses conversation as messages of a chat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from llmagentos.api.llm import Message
from llmagentos.api.responses import Item
from llmagentos.core.errors import InvalidInput

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text")


def messages(items: Sequence[Item]) -> list[Message]:
    """The messages that `items` mean. Raises `InvalidInput` naming the item that cannot be read."""
    chat = _Chat()
    for number, item in enumerate(items):
        kind = item.get("type", "message" if "role" in item else None)
        read = _READERS.get(kind) if isinstance(kind, str) else None
        if read is None:
            raise InvalidInput(
                f"input[{number}] is of type {kind!r}, which is not understood here",
                hint=f"there are {', '.join(_READERS)}",
                param=f"input[{number}].type",
            )
        read(chat, _Fields(item, f"input[{number}]"))
    return chat.messages


class _Fields:
    """An item or a part, and where it stands."""

    def __init__(self, fields: Item, place: str) -> None:
        self.fields = fields
        self.place = place

    def text(self, name: str) -> str:
        """A field that has to be text."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, f"must be text, not {type(value).__name__}")
        return value

    def wrong(self, name: str, why: str) -> InvalidInput:
        """The error for a field."""
        return InvalidInput(f"{self.place}.{name} {why}", param=f"{self.place}.{name}")


class _Chat:
    """Messages as items come: calls of functions and what was thought belong to the assistant's message."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._thought: str | None = None

    def message(self, fields: _Fields) -> None:
        role = fields.text("role")
        if role not in _ROLES:
            raise fields.wrong("role", f"must be one of {', '.join(_ROLES)}, not {role[:40]!r}")
        if role != "assistant":
            self._add(Message(cast("Any", role), _content(fields, "content")))
            return
        text, refusal = _spoken(fields)
        self._add(Message("assistant", text, refusal=refusal, reasoning_content=self._thought))

    def function_call(self, fields: _Fields) -> None:
        function = {"name": fields.text("name"), "arguments": fields.text("arguments")}
        call = {"id": fields.text("call_id"), "type": "function", "function": function}
        if self.messages and (last := self.messages[-1]).role == "assistant":
            self.messages[-1] = msgspec.structs.replace(last, tool_calls=[*(last.tool_calls or []), call])
        else:
            self._add(Message("assistant", tool_calls=[call], reasoning_content=self._thought))

    def function_call_output(self, fields: _Fields) -> None:
        self._add(Message("tool", _content(fields, "output"), tool_call_id=fields.text("call_id")))

    def reasoning(self, fields: _Fields) -> None:
        parts = fields.fields.get("content") or []
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise fields.wrong("content", "must be a list of parts")
        self._thought = "".join(str(part.get("text") or "") for part in parts) or None

    def _add(self, message: Message) -> None:
        self.messages.append(message)
        self._thought = None


_READERS: dict[str, Callable[[_Chat, _Fields], None]] = {
    "message": _Chat.message,
    "function_call": _Chat.function_call,
    "function_call_output": _Chat.function_call_output,
    "reasoning": _Chat.reasoning,
}


def _content(fields: _Fields, name: str) -> str | list[dict[str, Any]]:
    """Text, or parts in the form of a chat."""
    if isinstance(fields.fields.get(name), str):
        return fields.text(name)
    parts = [_part(part) for part in _parts(fields, name)]
    if not parts:
        return ""
    return str(parts[0]["text"]) if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _spoken(fields: _Fields) -> tuple[str | None, str | None]:
    """What the assistant said: its text, and what it refused."""
    if isinstance(fields.fields.get("content"), str):
        return fields.text("content"), None
    text, refusal = [], []
    for part in _parts(fields, "content"):
        if part.fields.get("type") == "refusal":
            refusal.append(part.text("refusal"))
        elif part.fields.get("type") in _TEXTS:
            text.append(part.text("text"))
        else:
            raise part.wrong("type", "must be output_text or refusal")
    return "".join(text) or (None if refusal else ""), "".join(refusal) or None


def _parts(fields: _Fields, name: str) -> list[_Fields]:
    parts = fields.fields.get(name)
    if not isinstance(parts, list):
        raise fields.wrong(name, "must be text or a list of parts")
    found = []
    for number, part in enumerate(parts):
        if not isinstance(part, dict):
            raise fields.wrong(f"{name}[{number}]", "must be an object with a type")
        found.append(_Fields(part, f"{fields.place}.{name}[{number}]"))
    return found


def _part(part: _Fields) -> dict[str, Any]:
    kind = part.fields.get("type")
    if kind in _TEXTS:
        return {"type": "text", "text": part.text("text")}
    if kind == "input_image":
        if "image_url" not in part.fields:
            raise part.wrong("file_id", "cannot be used: files are not kept here; send image_url")
        image = {"url": part.text("image_url")}
        if part.fields.get("detail") is not None:
            image["detail"] = part.text("detail")
        return {"type": "image_url", "image_url": image}
    if kind == "input_file":
        return {"type": "file", "file": {k: v for k, v in part.fields.items() if k != "type"}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part.fields.get("input_audio")}
    raise part.wrong("type", "must be input_text, input_image, input_file or input_audio")

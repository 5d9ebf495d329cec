"""Tools chosen by models that were trained for it: the tool calls of OpenAI's chat API, several in one reply."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmagentos.agents.calling import CallTool, RefuseTool
from llmagentos.agents.foreign import marked
from llmagentos.agents.log import Log, ModelTurn, ToolTurn
from llmagentos.agents.model import Message
from llmagentos.agents.tools import Tool
from llmagentos.api.runs import ToolRequest

_LONGEST_NAME = 64
_DESCRIPTION = 1024
_MAX_RESULT_SHOWN = 8000
_UNFIT = re.compile(r"[^a-zA-Z0-9_-]")


def names(tools: Sequence[Tool]) -> dict[str, str]:
    """What the model calls each tool: no dots, at most 64 characters, each name once."""
    given: dict[str, str] = {}
    for tool in tools:
        plain = _UNFIT.sub("_", tool.name)[:_LONGEST_NAME]
        name, number = plain, 2
        while name in given:
            name = f"{plain[: _LONGEST_NAME - 4]}_{number}"
            number += 1
        given[name] = tool.name
    return given


def offered(tools: Sequence[Tool]) -> tuple[dict[str, Any], ...]:
    """The tools as a request has them."""
    return tuple(
        {
            "type": "function",
            "function": {
                "name": name,
                "description": tool.doc[:_DESCRIPTION],
                "parameters": dict(tool.parameters) or {"type": "object", "properties": {}},
            },
        }
        for name, tool in zip(names(tools), tools, strict=True)
    )


def wanted(log: Log, tools: Sequence[Tool]) -> list[CallTool | RefuseTool] | None:
    """Calls of the last reply that were not settled yet; None when it asked for none."""
    place = next((i for i in reversed(range(len(log.turns))) if isinstance(log.turns[i], ModelTurn)), None)
    if place is None or not (asked := _requests(log, place)):
        return None
    known = names(tools)
    settled = {turn.call_id for turn in log.tools}
    return [_read(call_id, call, known) for call_id, call in asked.items() if call_id not in settled]


def _requests(log: Log, place: int) -> Mapping[str, ToolRequest]:
    """What the reply at `place` asks for. Ids are ours: some engines give the same ones in every reply, or none."""
    turn = log.turns[place]
    if not isinstance(turn, ModelTurn):
        return {}
    before = sum(isinstance(each, ToolTurn) for each in log.turns[:place])
    return {f"call-{before + number}": call for number, call in enumerate(turn.calls, 1)}


def _read(call_id: str, call: ToolRequest, known: Mapping[str, str]) -> CallTool | RefuseTool:
    name = known.get(call.name, call.name)
    try:
        arguments = msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError) as error:
        return RefuseTool(call_id, name, {}, f"the arguments are no JSON object ({error}): {call.arguments[:200]!r}")
    return CallTool(call_id, name, arguments)


def transcript(
    system: str, request: Message, log: Log, earlier: Sequence[Message], boundary: str = ""
) -> list[Message]:
    """The run so far as messages; a reply that asks for tools is followed by their results, in the order asked.

    What tools returned is set off by `boundary`.
    """
    messages = [Message("system", system)] if system else []
    messages += [*earlier, request]
    results = {turn.call_id: turn for turn in log.tools}
    for place, turn in enumerate(log.turns):
        asked = _requests(log, place)
        if isinstance(turn, ModelTurn) and asked:
            messages.append(Message("assistant", turn.text, calls=tuple(asked.items())))
            messages += [
                Message("tool", marked(_shown(result), boundary, result.name), call_id=call_id)
                for call_id in asked
                if (result := results.get(call_id)) is not None
            ]
    return messages


def _shown(turn: ToolTurn) -> str:
    if turn.error is not None:
        return f"failed: {turn.error}"
    text = turn.result if isinstance(turn.result, str) else msgspec.json.encode(turn.result).decode()
    return text if len(text) <= _MAX_RESULT_SHOWN else text[:_MAX_RESULT_SHOWN] + " ... (cut)"

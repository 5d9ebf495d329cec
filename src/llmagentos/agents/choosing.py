"""Tools chosen by the model: the prompt, the schema that keeps its choice well formed, and the reading of it.

The choice is a JSON object that the engine is told to fit to a schema (a grammar in llama.cpp), rather
than the `tools` of the chat API: engines enforce the former, and only ask for the latter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmagentos.agents.foreign import marked
from llmagentos.agents.grounding import RECALL_ID
from llmagentos.agents.log import Log, ModelTurn
from llmagentos.agents.model import Message
from llmagentos.agents.tools import Tool
from llmagentos.api.runs import Purpose
from llmagentos.core.errors import nearest

ANSWER = "answer"
"""Chosen instead of a tool when the model knows enough."""
_MAX_RESULT_SHOWN = 8000


class Call(msgspec.Struct, frozen=True):
    """The model wants a tool."""

    tool: str
    arguments: dict[str, Any]


class Ready(msgspec.Struct, frozen=True):
    """The model wants to answer."""


class Unusable(msgspec.Struct, frozen=True):
    """The reply is neither, and why."""

    reason: str


class _Reply(msgspec.Struct):
    tool: str
    arguments: dict[str, Any] = {}


def schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """What a choice must fit: one of the tools with its arguments, or to answer."""
    definitions: dict[str, Any] = {}
    choices = [_choice(tool, definitions) for tool in tools]
    choices.append(_object({"tool": {"const": ANSWER}}))
    whole: dict[str, Any] = {"anyOf": choices}
    return whole | ({"$defs": definitions} if definitions else {})


def _choice(tool: Tool, definitions: dict[str, Any]) -> dict[str, Any]:
    parameters = dict(tool.parameters) or {"type": "object"}
    prefix = f"{tool.name}:"
    for name, definition in parameters.pop("$defs", {}).items():
        definitions[prefix + name] = _moved(definition, prefix)
    return _object({"tool": {"const": tool.name}, "arguments": _moved(parameters, prefix)})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _moved(part: Any, prefix: str) -> Any:
    """`part` of a schema with its references to where the definitions of all tools are together."""
    if isinstance(part, Mapping):
        return {
            key: f"#/$defs/{prefix}{value.removeprefix('#/$defs/')}"
            if key == "$ref" and isinstance(value, str)
            else _moved(value, prefix)
            for key, value in part.items()
        }
    return [_moved(item, prefix) for item in part] if isinstance(part, list) else part


def parse(text: str, tools: Sequence[Tool]) -> Call | Ready | Unusable:
    """What the model chose."""
    try:
        reply = msgspec.json.decode(unfenced(text), type=_Reply)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError) as error:
        return Unusable(f"not a choice in JSON ({error}): {text[:200]!r}")
    if reply.tool == ANSWER:
        return Ready()
    names = [tool.name for tool in tools]
    if reply.tool in names:
        return Call(reply.tool, reply.arguments)
    close = nearest(reply.tool, names)
    return Unusable(f"there is no tool {reply.tool!r}" + (f"; did you mean {close!r}?" if close else ""))


def parse_object(text: str) -> dict[str, Any] | None:
    """A reply that is a JSON object; None for anything else."""
    try:
        return msgspec.json.decode(unfenced(text), type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError):
        return None


def unfenced(text: str) -> str:
    """`text` without the code block that models without a grammar like to put JSON into."""
    plain = text.strip()
    if plain.startswith("```") and plain.endswith("```"):
        plain = plain.strip("`").removeprefix("json")
    return plain


def arguments_prompt(tool: Tool, request: str) -> list[Message]:
    """Asks for nothing but the arguments of `tool`."""
    shown = msgspec.json.encode(tool.parameters.get("properties", {})).decode()
    system = f"Take the arguments of {tool.name} from the request. {_first_line(tool.doc)}\nArguments: {shown}"
    return [Message("system", system), Message("user", request)]


def system(instructions: str, records: Sequence[Any] | None) -> str:
    """What stands above the conversation: the instructions and what is known."""
    known = ["What is known:\n" + "\n".join(_shown(record) for record in records)] if records else []
    return "\n\n".join(part for part in [instructions, *known] if part)


def transcript(
    head: str,
    request: Message,
    log: Log,
    records: Sequence[Any] | None,
    tools: Sequence[Tool],
    *,
    answering: bool,
    boundary: str = "",
) -> list[Message]:
    """The run so far as messages, below `head`; results of tools are set off by `boundary`."""
    parts = [system(head, records)]
    if answering:
        parts.append("Answer the request from the results.")
    else:
        parts.append(_HOW + "\n".join(_described(tool) for tool in tools))
    messages = [Message("system", "\n\n".join(part for part in parts if part))]
    for turn in log.history:
        messages += [Message("user", turn.input), Message("assistant", turn.answer)]
    messages.append(request)
    for step in log.turns:
        if not isinstance(step, ModelTurn):
            if step.call_id == RECALL_ID:
                continue  # it stands in `head`
            outcome = f"failed: {step.error}" if step.error is not None else _shown(step.result)
            result = marked(outcome, boundary, step.name) if boundary else outcome
            messages.append(Message("user", f"Result of {step.name}: {result}"))
        elif step.purpose is Purpose.TOOL:
            choice = parse(step.text, tools)
            if answering and isinstance(choice, Ready):
                continue
            messages.append(Message("assistant", step.text))
            if isinstance(choice, Unusable):
                messages.append(Message("user", f"That was not usable: {choice.reason}. Choose again."))
    return messages


_HOW = (
    'Reply with one JSON object: {"tool": NAME, "arguments": {...}} to call a tool, or {"tool": "answer"} when you '
    "know enough to answer.\nTools:\n"
)


def _described(tool: Tool) -> str:
    properties = msgspec.json.encode(tool.parameters.get("properties", {})).decode()
    examples = f" For example: {'; '.join(tool.examples)}" if tool.examples else ""
    return f"- {tool.name}: {_first_line(tool.doc)} Arguments: {properties}{examples}"


def _first_line(doc: str) -> str:
    return doc.strip().partition("\n\n")[0].replace("\n", " ")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_RESULT_SHOWN else text[:_MAX_RESULT_SHOWN] + " ... (cut)"

"""The two ends of every prompt: what stands above the conversation, and the request with what is attached to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from llmagentos.agents import foreign, output
from llmagentos.agents.attachments import PICTURE
from llmagentos.agents.grounding import RECALL_ID
from llmagentos.agents.log import Log
from llmagentos.agents.model import Message
from llmagentos.api.agents import AgentSpec


def system(spec: AgentSpec, log: Log, *, tools: bool, answering: bool = True) -> str:
    """The instructions, what is remembered, how foreign text is marked, and the form of the answer."""
    known = _remembered(spec, log)
    foreign_text = tools or bool(log.request.attachments) or bool(known)
    parts = [
        spec.instructions,
        known,
        foreign.notice(foreign.boundary_of(spec, log)) if foreign_text else "",
        output.instruction(spec.output) if spec.output is not None and answering else "",
    ]
    return "\n\n".join(part for part in parts if part)


def request(spec: AgentSpec, log: Log) -> Message:
    """What the user asks, with the files: text as marked data, pictures as pictures."""
    attached = [(each, log.attached.get(each.digest, "")) for each in log.request.attachments]
    boundary = foreign.boundary_of(spec, log)
    texts = [
        foreign.marked(content, boundary, f"file {each.name}")
        for each, content in attached
        if not content.startswith(PICTURE)
    ]
    pictures = tuple(content for _, content in attached if content.startswith(PICTURE))
    return Message("user", "\n\n".join([*texts, log.input]), images=pictures)


def remembered(log: Log) -> list[Any]:
    """The facts that were looked up for the request."""
    turn = next((turn for turn in log.tools if turn.call_id == RECALL_ID), None)
    return list(_list(turn.result)) if turn is not None and turn.result else []


def _remembered(spec: AgentSpec, log: Log) -> str:
    found = remembered(log)
    return (
        "What you remember:\n" + foreign.marked(facts(found), foreign.boundary_of(spec, log), "memory") if found else ""
    )


def facts(found: Any) -> str:
    """Facts as a model reads them."""
    lines = [
        each.get("text", "") if isinstance(each, dict) else msgspec.json.encode(each).decode() for each in _list(found)
    ]
    return "\n".join(f"- {line}" for line in lines)


def _list(found: Any) -> Iterator[Any]:
    yield from found if isinstance(found, list) else [found]

"""Redaction in runs: which texts of an event hold what people and tools said, and what a model gets to read.

A host sees a run's texts in the order of its log, as the server does, so both number placeholders alike.
Models read placeholders; tools get the values; the answer has the values again where that is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from llmagentos.agents.model import Message, Prompt, Reply
from llmagentos.api.agents import AgentSpec
from llmagentos.api.runs import (
    Answered,
    ApprovalRequested,
    Created,
    Data,
    Failed,
    ModelReplied,
    RunEvent,
    ToolAnswered,
    ToolCalled,
    ToolRefused,
    ToolRequest,
    Turn,
)
from llmagentos.core.config.guardrails import Guardrails
from llmagentos.core.errors import InvalidInput
from llmagentos.security.redaction import Vault, each_text, in_json

Change = Callable[[str], str]


class ValueForgotten(InvalidInput):
    """What stands behind a placeholder is not known any more."""

    code = "value_forgotten"


def changed(data: Data, change: Change) -> Data:
    """`data` with `change` applied to what people, models and tools said in it; names and identities stay."""
    match data:
        case Created():
            turns = [Turn(change(turn.input), change(turn.answer)) for turn in data.history]
            return replace(data, summary=change(data.summary), history=turns, input=change(data.input))
        case ModelReplied():
            return replace(data, text=in_json(data.text, change), calls=[_call(call, change) for call in data.calls])
        case ToolCalled() | ApprovalRequested():
            return replace(data, arguments=each_text(data.arguments, change))
        case ToolRefused():
            return replace(data, arguments=each_text(data.arguments, change), error=change(data.error))
        case ToolAnswered():
            error = None if data.error is None else change(data.error)
            return replace(data, result=each_text(data.result, change), error=error)
        case Answered():
            return _answer(data, change)
        case Failed():
            return replace(data, error=change(data.error))
        case _:
            return data


def _answer(data: Answered, change: Change) -> Answered:
    return replace(
        data,
        text=in_json(data.text, change) if data.output is not None else change(data.text),
        sources=each_text(data.sources, change),
        output=each_text(data.output, change),
        replaced=None if data.replaced is None else change(data.replaced),
    )


def _call(call: ToolRequest, change: Change) -> ToolRequest:
    return ToolRequest(call.name, in_json(call.arguments, change))


class Redacting:
    """What a host does for one run. Without kinds it changes nothing."""

    def __init__(self, spec: AgentSpec, values: Mapping[str, str]) -> None:
        rails = spec.guardrails or Guardrails()
        self._kinds = rails.prompts
        self._logs = bool(rails.logs)
        self._restore = rails.restore
        self._vault = Vault(self._kinds, values)

    def learn(self, events: Iterable[RunEvent | Data], attached: Iterable[str] = ()) -> None:
        """See what the log holds, in its order; what is attached to the request belongs behind it."""
        if not self._kinds:
            return
        for event in events:
            data = event.data if isinstance(event, RunEvent) else event
            changed(data, self._vault.redact)
            if isinstance(data, Created):
                for text in attached:
                    self._vault.redact(text)

    def prompt(self, prompt: Prompt) -> Prompt:
        """What the model reads. Nobody watches it being written, as they would see placeholders."""
        if not self._kinds:
            return prompt
        return replace(prompt, messages=tuple(map(self._message, prompt.messages)), live=False)

    def text(self, text: str) -> str:
        """A text for an embedding."""
        return self._vault.cover(text) if self._kinds else text

    def reply(self, reply: Reply) -> Reply:
        """What the model said, with the values."""
        if not self._kinds:
            return reply
        calls = tuple(_call(call, self._vault.restore) for call in reply.calls)
        return replace(reply, text=in_json(reply.text, self._vault.restore), calls=calls)

    def arguments(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a tool gets. Raises `ValueForgotten` rather than to hand a placeholder to the world."""
        if not self._kinds:
            return arguments
        restored: dict[str, Any] = each_text(arguments, self._vault.restore)
        if self._logs and (unknown := self._vault.unknown(msgspec.json.encode(restored).decode())):
            raise ValueForgotten(
                f"what stands behind {', '.join(unknown)} is not known any more", hint="ask the user for it again"
            )
        return restored

    def answer(self, answered: Answered) -> Answered:
        """The run's answer as it goes into the log."""
        if not self._kinds or self._restore:
            return answered
        return _answer(answered, self._vault.cover)

    def _message(self, message: Message) -> Message:
        """What the operator wrote in the instructions stays: it is in no log, and meant for the model."""
        cover = partial(self._vault.cover, unknown=message.role != "system")
        calls = tuple((call_id, _call(call, cover)) for call_id, call in message.calls)
        return replace(message, content=in_json(message.content, cover), calls=calls)

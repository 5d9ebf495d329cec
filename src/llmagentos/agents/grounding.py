"""Answers from given records: the prompt for it, what is said when there are none, and what was used.

The prompt is short and puts the records beside the question, because it has to work with a model of
135 million parameters. Of seven layouts tried with it on 14 questions to examples/catalogue this one
was right most often.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from llmagentos.agents import support
from llmagentos.agents.log import Log
from llmagentos.agents.model import Message
from llmagentos.api.runs import Turn
from llmagentos.core.i18n import translate

CALL_ID = "ground"
RECALL_ID = "recall"
"""The call that looks up what fits the request in the agent's memory, before anything else."""
MAX_CHARACTERS = 6000
"""Of records in a prompt; records over it are left out, the least fitting (last) first."""
_MAX_FIELD = 1500


def records(result: Any, name: str) -> list[Any]:
    """The result of the tool `name` as a list of records: empty when it found nothing.

    A single plain value says nothing by itself, so it goes by the tool's name: `{"clock": "07:49"}`.
    """
    if result is None or result in ("", [], {}):
        return []
    if isinstance(result, list):
        found = result
    else:
        found = [result if isinstance(result, dict) else {name.rpartition(".")[2]: result}]
    kept: list[Any] = []
    left = MAX_CHARACTERS
    for record in found:
        left -= len(_line(record))
        if left < 0 and kept:
            break
        kept.append(record)
    return kept


def prompt(instructions: str, found: Sequence[Any], history: Iterable[Turn], request: Message) -> list[Message]:
    """Messages that ask for an answer from `found`."""
    system = instructions or "Answer the question in one short sentence."
    messages = [Message("system", system)]
    for turn in history:
        messages += [Message("user", turn.input), Message("assistant", turn.answer)]
    shown = "\n".join(_line(record) for record in found)
    text = f"Records:\n{shown}\n\nAnswer from the records: {request.content}"
    messages.append(Message("user", text, images=request.images))
    return messages


def given(log: Log) -> list[Any]:
    """The records that the model was given to answer from: what the tools found, without what it remembers."""
    turns = [turn for turn in log.tools if turn.error is None and turn.call_id != RECALL_ID]
    return [record for turn in turns for record in records(turn.result, turn.name)]


def language(request: str) -> str:
    """The language to answer `request` in, by its script."""
    return "zh-CN" if support.is_cjk(request) else "en"


def unknown(request: str) -> str:
    """Said when nothing was found."""
    return translate(language(request), "I do not know: I found nothing about that.")


def quoted(found: Sequence[Any], request: str) -> str:
    """The records themselves, said when the model's own words do not stand on them."""
    head = translate(language(request), "This is what I found:")
    return "\n".join([head, *map(_line, found)])


def _line(record: Any) -> str:
    if isinstance(record, dict):
        return "- " + "; ".join(f"{name}: {_value(value)}" for name, value in record.items())
    return f"- {_value(record)}"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_FIELD else text[:_MAX_FIELD] + " ..."

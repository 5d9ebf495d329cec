"""Sessions that outgrow the model's context: the older turns give way to a summary that the model writes.

Pure. The summary is a model call of the run that needs the room, so it passes the gate, counts against
the run's limits, and stands in the log: a replay has the same one. The last turns stay whole, and no
turn is dropped: what was not summed up is in the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmagentos.agents.log import Log
from llmagentos.agents.model import Message, Prompt
from llmagentos.api.agents import AgentSpec
from llmagentos.api.runs import Purpose, Turn

CONTEXT = 8192
"""Tokens of context of a model of which nobody knows."""
AT = 0.5
"""Share of the context that a session's turns may take before they are summed up."""
KEEP = 0.25
"""Share of the context in which the last turns are kept whole."""
MOST_TOKENS = 32_000
"""A session's turns are summed up over this, however large the context: they stand in each run's log."""
_READ = 0.6
"""Share of the context that one summary is made from; more takes several, one after the other."""
_SHORTEST, _LONGEST = 48, 800
"""Tokens of a summary."""
_GONE = re.compile(r"\[(\d+) older requests of this conversation were left out\]")
_HOW = (
    "You keep the notes of a conversation between a user and an assistant. Write a short summary that lets the "
    "assistant go on with it: what the user wants, names, numbers, dates and decisions exactly as they were said, and "
    "what is still open. Write in the language of the conversation, and write nothing but the summary."
)


def due(spec: AgentSpec, log: Log, prompt: Prompt) -> Prompt | None:
    """The call that has to come before `prompt`, because the session takes too much room; None when there is room."""
    before, turns = log.before
    if not turns:
        return None
    context = min(log.request.context or CONTEXT, max(1, spec.limits.tokens - log.tokens))
    session = estimate(turns) + (_text_tokens(before) if before else 0)
    free = context - min(prompt.max_tokens, context // 4) - (prompt.estimate - session)
    if session <= min(AT * context, free, MOST_TOKENS):
        return None
    covers = _older(turns, min(KEEP * context, free - _longest(context), MOST_TOKENS / 2))
    fitting = max(1, _fitting(turns[:covers], int(_READ * context)))
    text = _told(before, turns[:fitting], int(_READ * context))
    messages = (Message("system", _HOW), Message("user", text))
    return Prompt(
        prompt.model,
        messages,
        min(spec.limits.reply, _longest(context)),
        Purpose.COMPACT,
        live=False,
        temperature=0.0,
        covers=fitting,
    )


def bounded(summary: str, turns: list[Turn]) -> tuple[str, list[Turn]]:
    """A session of an agent that never calls a model, so that nobody sums it up: the oldest turns go, and it says so.

    For others this does nothing: `due` comes before.
    """
    if estimate(turns) <= 2 * MOST_TOKENS:
        return summary, turns
    left = len(turns) - 1
    while left and estimate(turns[left - 1 :]) <= MOST_TOKENS:
        left -= 1
    gone = int(found[1]) if (found := _GONE.search(summary)) is not None else 0
    told = f"[{left + gone} older requests of this conversation were left out]"
    return "\n".join(filter(None, (_GONE.sub("", summary).strip(), told))), turns[left:]


def estimate(turns: Sequence[Turn]) -> int:
    """About how many tokens the turns take in a prompt."""
    return sum(16 + _text_tokens(turn.input) + _text_tokens(turn.answer) for turn in turns)


def _text_tokens(text: str) -> int:
    return len(text.encode()) // 3


def _longest(context: int) -> int:
    return max(_SHORTEST, min(_LONGEST, context // 8))


def _older(turns: Sequence[Turn], room: float) -> int:
    """How many turns, the oldest, have to go so that the others fit into `room` tokens; at least one."""
    kept = 0
    while kept < len(turns) - 1 and estimate(turns[len(turns) - kept - 1 :]) <= room:
        kept += 1
    return len(turns) - kept


def _fitting(turns: Sequence[Turn], room: int) -> int:
    count = 0
    while count < len(turns) and estimate(turns[: count + 1]) <= room:
        count += 1
    return count


def _told(summary: str, turns: Sequence[Turn], room: int) -> str:
    """What is to be summed up. One turn that is longer than the room loses its middle, and the model is told."""
    parts = [f"Summary of what was said before:\n{summary}"] if summary else []
    each = room * 3 // (2 * len(turns)) if estimate(turns) > room else None
    for turn in turns:
        parts += [f"User: {_shortened(turn.input, each)}", f"Assistant: {_shortened(turn.answer, each)}"]
    return "\n\n".join(parts)


def _shortened(text: str, most: int | None) -> str:
    """At most about `most` bytes."""
    if most is None or len(text.encode()) <= most:
        return text
    half = max(1, most // (2 * max(1, len(text.encode()) // len(text))))
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters are left out here ...]\n{text[-half:]}"

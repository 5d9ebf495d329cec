"""Traces of agent runs: what was asked of models when, one run a line (JSON Lines).

    {"id": "r1", "at": 0.5, "tenant": "acme", "kind": "chat", "priority": 0,
     "steps": [{"calls": [[1155, 211]], "pause": 2.0}, {"calls": [[800, 50], [900, 60]]}]}

A step's calls ([tokens in, tokens out]) are made at once; the next step begins `pause` seconds after the
last of them has ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llmagentos.core.errors import InvalidInput

MAX_CALLS = 1_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """Sizes of a call in tokens."""

    tokens_in: int
    tokens_out: int


@dataclass(frozen=True, slots=True)
class Step:
    """Calls made at once, and the seconds between their end and the next step (a tool, a person)."""

    calls: tuple[Call, ...]
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """An agent's run. `at` is seconds from the start of the trace, `kind` the class that reports tell apart."""

    id: str
    at: float
    tenant: str
    kind: str
    steps: tuple[Step, ...]
    priority: int = 0


def dumps(runs: Iterable[Run]) -> Iterable[str]:
    """The trace's lines, without their ends."""
    for run in runs:
        steps = [
            {"calls": [[call.tokens_in, call.tokens_out] for call in step.calls]}
            | ({"pause": step.pause} if step.pause else {})
            for step in run.steps
        ]
        head = {"id": run.id, "at": round(run.at, 6), "tenant": run.tenant, "kind": run.kind}
        yield json.dumps(head | ({"priority": run.priority} if run.priority else {}) | {"steps": steps})


def loads(lines: Iterable[str], *, name: str = "trace") -> list[Run]:
    """The runs of a trace in the order of their start. Raises `InvalidInput` that names the line."""
    runs: list[Run] = []
    calls = 0
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            run = _run(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            hint = (
                'a line is like {"id": "r1", "at": 0, "tenant": "a", "kind": "chat", "steps": [{"calls": [[100, 20]]}]}'
            )
            raise InvalidInput(f"{name}:{number}: not a run: {reason}", hint=hint) from None
        calls += sum(len(step.calls) for step in run.steps)
        if run.id in seen:
            raise InvalidInput(f"{name}:{number}: the id {run.id!r} was there before")
        if calls > MAX_CALLS:
            raise InvalidInput(f"{name}:{number}: more than {MAX_CALLS} calls")
        seen.add(run.id)
        runs.append(run)
    if not runs:
        raise InvalidInput(f"{name}: no runs", hint="`llmctl simulate --generate mix` writes a trace")
    return sorted(runs, key=lambda run: run.at)


def _run(found: dict[str, Any]) -> Run:
    steps = tuple(
        Step(tuple(_call(pair) for pair in step["calls"]), _number(step.get("pause", 0.0), "pause"))
        for step in found["steps"]
    )
    if not steps or not all(step.calls for step in steps):
        raise ValueError("a run needs steps, and each step calls")
    priority = found.get("priority", 0)
    if not isinstance(priority, int) or not -20 <= priority <= 19:
        raise ValueError(f"priority must be -20 to 19, not {priority!r}")
    at = _number(found["at"], "at")
    return Run(str(found["id"]), at, str(found.get("tenant", "")), str(found.get("kind", "run")), steps, priority)


def _call(pair: Sequence[Any]) -> Call:
    if len(pair) != 2 or not all(type(n) is int and 0 <= n <= 10_000_000 for n in pair):
        raise ValueError(f"a call is [tokens in, tokens out], not {pair!r}")
    return Call(*pair)


def _number(value: Any, name: str) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e9:
        raise ValueError(f"{name} must be seconds from 0 on, not {value!r}")
    return float(value)

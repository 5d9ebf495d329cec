"""Differences that tasks report, as unified diffs."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from llmagentos.api.jobs import Difference

MAX_LINES = 400
_LOOKS = {"+": "add", "-": "remove"}


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line; `look` is `add`, `remove` or empty."""

    look: str
    text: str


def lines(difference: Difference) -> list[DiffLine]:
    """The lines of one difference, at most `MAX_LINES` of them."""
    if difference.prepared:
        found = difference.prepared.splitlines()
    else:
        found = [
            line.rstrip("\n")
            for line in difflib.unified_diff(
                difference.before.splitlines(),
                difference.after.splitlines(),
                difference.before_header or "before",
                difference.after_header or "after",
                lineterm="",
            )
        ]
    shown = [DiffLine(_look(line), line) for line in found[:MAX_LINES]]
    return shown if len(found) <= MAX_LINES else [*shown, DiffLine("", "…")]


def _look(line: str) -> str:
    return "" if line.startswith(("--- ", "+++ ")) else _LOOKS.get(line[:1], "")

"""Cuts what a task module returned to what we are willing to carry and keep."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from llmagentos.api.jobs import MAX_EVENT_BYTES, Difference, JobEvent, LogLine, TaskResult

MAX_DIFF_BYTES = 32 * 1024
"""One side of a difference."""
MAX_DIFFS = 16
MAX_RESULT_BYTES = 64 * 1024
"""What `bounded` leaves of a task's result by default."""


def bounded(result: dict[str, Any], most: int = MAX_RESULT_BYTES) -> dict[str, Any]:
    """`result` cut so that it takes at most about `most` bytes of JSON, each cut marked where it is.

    Long texts lose their middle, long lists their end, whatever is nested deeper than 20 its content.
    """
    text = most // 2
    while True:
        cut: dict[str, Any] = _cut(result, text, 20)
        if text <= 16 or len(msgspec.json.encode(cut)) <= most:
            return cut if len(msgspec.json.encode(cut)) <= most else {"msg": f"[a result over {most} bytes was cut]"}
        text //= 2


def fit(event: JobEvent) -> JobEvent:
    """`event` within `MAX_EVENT_BYTES`: what is too long is cut and marked; an event that fits is left alone."""
    if len(msgspec.json.encode(event)) <= MAX_EVENT_BYTES:
        return event
    replace = msgspec.structs.replace
    if isinstance(event, TaskResult):
        diff = [_difference(each, MAX_DIFF_BYTES // 8) for each in event.diff[:MAX_DIFFS]]
        return replace(
            event,
            task=_cut(event.task, 1000, 1),
            item=_cut(event.item, 1000, 3),
            result=bounded(event.result),
            diff=diff if len(msgspec.json.encode(diff)) <= MAX_EVENT_BYTES // 2 else [],
        )
    if isinstance(event, LogLine):
        return replace(event, text=_cut(event.text, MAX_EVENT_BYTES // 16, 1))
    return LogLine(seq=event.seq, at=event.at, level="warning", text="an event over the limit was left out")


def difference(before: str, after: str, *, before_header: str = "", after_header: str = "") -> Difference:
    """A difference of two texts, each within `MAX_DIFF_BYTES`."""
    return _difference(Difference(before, after, before_header, after_header), MAX_DIFF_BYTES)


def _difference(full: Difference, most: int) -> Difference:
    fields = msgspec.structs.asdict(full)
    return Difference(**{name: _cut(text, most, 1) for name, text in fields.items()})


def _cut(value: Any, most: int, depth: int) -> Any:
    if isinstance(value, str):
        # A text from a terminal may hold halves of surrogate pairs (PEP 383), which JSON cannot.
        clean = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if len(clean) <= most:
            return clean
        half = most // 2
        return f"{clean[:half]}…[{len(clean) - 2 * half} characters cut]…{clean[-half:]}"
    if isinstance(value, bool | int | float) or value is None:
        return _number(value)
    if depth == 0:
        return "…[cut: nested too deep]"
    if isinstance(value, dict):
        items = list(value.items())
        kept = {_cut(str(k), 200, 1): _cut(v, most, depth - 1) for k, v in items[:most]}
        return kept | ({"…": f"[{len(items) - most} entries cut]"} if len(items) > most else {})
    if isinstance(value, list | tuple):
        shown = [_cut(v, most, depth - 1) for v in value[:most]]
        return shown + ([f"…[{len(value) - most} entries cut]"] if len(value) > most else [])
    return _cut(str(value), most, depth)


def _number(value: float | None) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return str(value)
    return value if value is None or math.isfinite(value) else str(value)

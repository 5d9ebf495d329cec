"""What an endpoint says in headers and errors about how much it will still take.

`x-ratelimit-remaining-{requests,tokens}` and `x-ratelimit-reset-*` are OpenAI's, and those of most who
copy its API; `Retry-After` is RFC 9110, section 10.2.3; `retry-after-ms` is Azure's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

_MOST_WAIT_S = 3600.0
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# Of OpenAI, DeepSeek (only HTTP 402), Moonshot, DashScope, Mistral and Anthropic.
_NOTHING_LEFT = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "quota_exceeded",
        "exceeded_current_quota_error",
        "insufficient_balance",
        "arrearage",
    }
)


def retry_after(headers: Mapping[str, str], wall: float) -> float | None:
    """Seconds that the headers ask to wait, at most an hour; None when they do not say. `wall` is the time."""
    if (found := _number(headers.get("retry-after-ms"))) is not None:
        return min(_MOST_WAIT_S, found / 1000)
    text = headers.get("retry-after")
    if text is None:
        return None
    if (seconds := _number(text)) is None:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - wall
        except ValueError:
            return None
    return min(_MOST_WAIT_S, max(0.0, seconds))


def left(headers: Mapping[str, str]) -> dict[str, float]:
    """What is left of `requests` and `tokens`; `wait` is until there is more, when nothing is."""
    found: dict[str, float] = {}
    for name in ("requests", "tokens"):
        remaining = _number(headers.get(f"x-ratelimit-remaining-{name}"))
        if remaining is None:
            continue
        found[name] = remaining
        if remaining == 0 and (wait := _duration(headers.get(f"x-ratelimit-reset-{name}", ""))) is not None:
            found["wait"] = max(found.get("wait", 0.0), wait)
    return found


def nothing_left(status: int, error: Any) -> bool:
    """Whether a refusal is final: the account's quota or balance is used up."""
    if status == 402:
        return True
    if not isinstance(error, dict):
        return False
    kinds = {str(error.get(key)).lower() for key in ("code", "type")}
    return status in (400, 401, 403, 429) and bool(kinds & _NOTHING_LEFT)


def _number(text: str | None) -> float | None:
    """A number that is not negative."""
    plain = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*", text or "", re.ASCII)
    return float(plain[1]) if plain else None


def _duration(text: str) -> float | None:
    """Seconds of `90`, `1.5s`, `6m0s` or `20ms`."""
    if (plain := _number(text)) is not None:
        return min(_MOST_WAIT_S, plain)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return min(_MOST_WAIT_S, sum(float(number) * _UNITS[unit] for number, unit in parts))

"""What a check of `llmctl doctor` yields."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One check: what was looked at, how it is, and what to do about it."""

    check: str
    verdict: Verdict
    message: str
    hint: str | None = None

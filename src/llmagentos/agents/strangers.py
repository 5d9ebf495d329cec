"""Text that strangers send and people or models will read."""

from __future__ import annotations

import unicodedata
from typing import Any

_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs"})
"""Unicode categories: control, format, private use, surrogate."""


def plain_text(text: Any, most: int) -> str:
    """`text` without characters that people do not see (they can hide instructions), at most `most` of them."""
    if not isinstance(text, str):
        return ""
    seen = "".join(
        c for c in text[: 2 * most] if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs")
    )
    return seen if len(seen) <= most else seen[:most] + " ... (cut)"

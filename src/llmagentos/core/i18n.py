"""Messages in English and Simplified Chinese.

The English text is the key; `locale/zh-CN.json` holds the translations. A shape test fails when a
`tr("...")` literal in the source has no Chinese entry.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh-CN")


@cache
def catalog(language: str) -> Mapping[str, str]:
    """English text -> text in `language` (empty for English)."""
    if language == "en":
        return {}
    import json  # in English nobody waits for it

    text = (Path(__file__).parents[1] / "locale" / f"{language}.json").read_text("utf-8")
    loaded: dict[str, str] = json.loads(text)
    return loaded


def language_of(tag: str) -> str:
    """The language we have for a locale or header tag: `zh_CN.UTF-8`, `zh-Hans` -> `zh-CN`, else `en`."""
    return "zh-CN" if tag.lower().startswith("zh") else "en"


def preferred(accept: str) -> str:
    """The language we have that an `Accept-Language` header (RFC 9110 section 12.5.4) likes best, else `en`."""
    ranked = []
    for position, part in enumerate(accept.split(",")[:20]):
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        if tag.lower().startswith(("en", "zh")) and weight > 0:
            ranked.append((-weight, position, tag))
    return language_of(min(ranked)[2]) if ranked else "en"


@cache
def terminal_language() -> str:
    """From LLMAGENTOS_LANG, LC_ALL, LC_MESSAGES or LANG, in this order."""
    for name in ("LLMAGENTOS_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return language_of(value)
    return "en"


def translate(language: str, text: str, **values: Any) -> str:
    """`text` in `language`, with `{name}` fields filled from `values`."""
    template = catalog(language).get(text, text)
    return template.format(**values) if values else template


def tr(text: str, **values: Any) -> str:
    """`text` in the terminal's language."""
    return translate(terminal_language(), text, **values)

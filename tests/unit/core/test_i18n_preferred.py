"""Which language a browser's Accept-Language header leads to."""

from __future__ import annotations

import pytest

from llmagentos.core.i18n import preferred


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("fr-FR,zh-Hans;q=0.5", "zh-CN"),
        ("fr, de", "en"),
        ("en;q=0.2, zh;q=0.7", "zh-CN"),
        ("zh;q=0, en;q=0.1", "en"),
        ("zh;q=nonsense", "en"),
        ("," * 5000 + "zh", "en"),
    ],
)
def test_the_best_liked_language_we_have(header: str, language: str) -> None:
    assert preferred(header) == language

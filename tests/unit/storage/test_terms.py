"""Words to search by: two Chinese characters are found, and no text makes terms that a database would misread."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from llmagentos.storage.terms import index_terms, query_terms


def found(query: str, text: str) -> bool:
    return bool(set(query_terms(query)) & set(index_terms(text).split()))


def test_two_characters_of_chinese_are_found() -> None:
    assert found("绿茶", "用户喜欢喝绿茶。")
    assert found("茶", "用户喜欢喝绿茶。")
    assert not found("红酒", "用户喜欢喝绿茶。")
    assert not found("茶绿", "用户喜欢喝绿茶。")


def test_widths_cases_and_mixed_scripts() -> None:
    assert found("ＡＩ", "The AI helper")
    assert found("straße", "Hauptstrasse 5, Straße 7")
    assert found("db7", "数据库在db7上")
    assert query_terms("What is the name of the cat?") == ["name", "cat"]
    assert query_terms("what is it") == ["what", "is", "it"]


@given(st.text(max_size=200))
def test_terms_are_plain(text: str) -> None:
    for term in [*index_terms(text).split(), *query_terms(text)]:
        assert re.fullmatch(r"[a-z0-9]+", term)
    if query_terms(text):
        assert found(text, text)

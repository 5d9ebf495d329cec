"""Words to index and to search by, in any language, as plain ASCII.

Text without spaces between words (Chinese, Japanese, Korean) is indexed by its characters and pairs of
them, so that a word of two characters is found; tokenizers of databases find none or need three. Words in
other letters than ASCII become hexadecimal: what a database takes for a letter depends on its locale.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_IS_CJK = re.compile(rf"[{_CJK}]")
_LONGEST = 40
# Words that most English sentences have say nothing about which one is meant.
_COMMON = frozenset(
    """a an and are as at be by can did do does for from had has have he her his how i in is it its me my no not of on
    or our she that the their them they this to user was we were what when where which who will with you your""".split()  # noqa: SIM905
)
MOST_TERMS = 64
"""Of one query."""


def index_terms(text: str) -> str:
    """What is stored of `text` to be searched, separated by spaces."""
    return " ".join(_terms(text, single=True))


def query_terms(text: str) -> list[str]:
    """What `text` is searched by: each term once, pairs where there are pairs."""
    terms = dict.fromkeys(_terms(text, single=False))
    telling = [term for term in terms if term not in _COMMON]
    return (telling or list(terms))[:MOST_TERMS]


def _terms(text: str, *, single: bool) -> Iterator[str]:
    for run in _RUN.findall(unicodedata.normalize("NFKC", text).casefold()):
        if not _IS_CJK.match(run):
            yield _plain(run[:_LONGEST])
            continue
        if single or len(run) == 1:
            yield from map(_plain, run)
        yield from (_plain(run[i : i + 2]) for i in range(len(run) - 1))


def _plain(word: str) -> str:
    return word if word.isascii() else "".join(f"u{ord(character):x}" for character in word)

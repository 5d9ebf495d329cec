"""Does a text stand on records? A check by words and numbers, and which records it stands on.

Small models copy well and invent well. What they invent shows: numbers that no record has, or mostly
words that neither the records nor the request have. The check finds those, not a "no" in place of a
"yes"; that takes a model with judgement, and it is why the records are always shown with the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

NEW_WORDS = 0.5
"""An answer of which more than this part is new was not made from the records."""
_CLOSE = 0.5
"""A record that supports less than this part of what the best one supports was not used."""

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_COUNTED = re.compile(r"(\d+(?:[.,]\d+)*)\s*([\u3400-\u9fff]?)")
_WORD = re.compile(r"[^\W\d_]+", re.UNICODE)
_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
# Words of the prompt itself ("Answer from the records") are nothing that an answer could invent.
_STOP = frozenset(
    """a about all also am an and any are as at be been but by can could customer did do does for from had has have he
    her here his how i if in into is it its just may more most much my no not of on one only or other our out so some
    such than that the their them then there these they this those to too up us was we were what when where which who
    will with would yes you your record records""".split()  # noqa: SIM905
)


def is_cjk(text: str) -> bool:
    """Whether `text` has Chinese characters."""
    return _CJK.search(text) is not None


def unsupported(answer: str, records: Sequence[Any], request: str) -> str | None:
    """What in `answer` comes neither from `records` nor from `request`; None when it stands on them."""
    source = "\n".join([*map(_flat, records), request])
    invented = numbers(answer) - numbers(source)
    if invented:
        return f"numbers that are not in the records: {', '.join(sorted(invented))}"
    if answer.strip() and _bare(answer) == _bare(request) != "":
        return "the request again"
    if is_cjk(answer) != is_cjk(source):
        return None  # an answer in another language than the records has no words in common with them
    if wrong := _miscounted(answer, source):
        return f"numbers that count something else in the records: {', '.join(wrong)}"
    if is_cjk(request) and _foreign(answer, source) > len(_CJK.findall(answer)):
        return "mostly another language than that of the request"
    told, known = set(words(answer)), set(words(source))
    new = [word for word in told if not _known(word, known)]
    # A figure that is right says as much as two words.
    if len(new) > NEW_WORDS * (len(told) + 2 * len(numbers(answer))):
        return f"mostly words that are not in the records: {', '.join(sorted(new)[:5])}"
    return None


def _bare(text: str) -> str:
    return re.sub(r"\W+", "", text.lower())


def _miscounted(answer: str, source: str) -> list[str]:
    """Numbers with the Chinese character behind them (what they count) that count something else in `source`."""
    counts: dict[str, set[str]] = {}
    for number, unit in _COUNTED.findall(source):
        counts.setdefault(_plain(number), set()).add(unit)
    told = [(_plain(number), unit) for number, unit in _COUNTED.findall(answer) if unit]
    return [n + unit for n, unit in told if unit not in (known := counts.get(n, {""})) and "" not in known]


def _foreign(answer: str, source: str) -> int:
    """Letters of Latin words in `answer` that `source` does not have."""
    known = set(words(source))
    return sum(len(word) for word in words(answer) if word.isascii() and word not in known)


def used(answer: str, records: Sequence[Any], request: str) -> list[Any]:
    """The records that `answer` was made from: those that share most with it beyond the request."""
    asked = set(words(request))
    told = {word for word in words(answer) if word not in asked}
    figures = numbers(answer)
    shares = []
    for record in records:
        text = _flat(record)
        known = set(words(text))
        shares.append(sum(_known(word, known) for word in told) + 2 * len(figures & numbers(text)))
    best = max(shares, default=0)
    return [record for record, share in zip(records, shares, strict=True) if share >= _CLOSE * best]


def numbers(text: str) -> set[str]:
    """The numbers in `text`, each in one form: `1,200.50` -> `1200.5`."""
    return {_plain(found) for found in _NUMBER.findall(text)}


def _plain(number: str) -> str:
    whole = re.sub(r",(?=\d{3}(?:\D|$))", "", number).replace(",", ".")
    head, dot, tail = whole.partition(".")
    return (head.lstrip("0") or "0") + (f".{tail.rstrip('0')}" if dot and tail.rstrip("0") else "")


def words(text: str) -> Iterator[str]:
    """What carries meaning: words without the most common ones, pairs of Chinese characters."""
    for word in _WORD.findall(text.lower()):
        if is_cjk(word):
            yield from (word[i : i + 2] for i in range(len(word) - 1)) if len(word) > 1 else (word,)
        elif word not in _STOP and len(word) > 1:
            yield word


def _known(word: str, known: set[str]) -> bool:
    """Whether the word is known, or one with the same beginning (another form of it)."""
    if word in known:
        return True
    if is_cjk(word):
        return len(word) == 1 and any(word in other for other in known)
    stem = word[: max(4, len(word) - 3)]
    return len(word) > 4 and any(other.startswith(stem) for other in known)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name} {_flat(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "\n".join(map(_flat, value))
    return str(value)

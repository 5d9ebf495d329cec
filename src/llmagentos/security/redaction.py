"""Personal data and secrets in texts: found, put aside behind placeholders, and put back.

Pure. What is looked for can be checked without knowing the world: an ID card and a bank card carry
check digits, an address or a key has a form. Names and street addresses do not, and are not found.
Every expression has bounded repetition and begins where few texts do, so the time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

KINDS = ("keys", "email", "id_card", "bank_card", "phone")
"""What can be looked for. Where two overlap the one that stands first here counts, as it checks more."""

_PEM = re.compile(r"-----BEGIN ([A-Z][A-Z0-9 ]{0,40})-----")
_LONGEST_PEM = 20_000
_KEYS = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"lao_[a-z]{2,16}_[A-Za-z0-9_-]{16,128}"  # ours
    r"|sk-[A-Za-z0-9_-]{16,256}"  # OpenAI and those who copied its form
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # AWS: id of an access key
    r"|gh[pousr]_[A-Za-z0-9]{36,255}"  # GitHub
    r"|eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{16,2048}"  # JWT, RFC 7519
    r")"
)
_BEGINNINGS = ("lao_", "sk-", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "eyJ")
# AWS's secret keys have no form of their own: 40 characters of base64 count where their name stands before them.
_AWS_SECRET = re.compile(r"aws.{0,20}?secret.{0,20}?[=:\s\"']{1,5}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])", re.IGNORECASE)
# The `@` is searched for, then what stands around it is read: a long word without one costs nothing.
_LOCAL = re.compile(r"[A-Za-z0-9._%+'-]{1,64}\Z")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])")
# The first character stands before the look behind it: `re` then skips to the next one of its kind at once.
_ID_CARD = re.compile(r"[1-9](?<![0-9A-Za-z].)\d{16}[0-9Xx](?![0-9A-Za-z])", re.ASCII)
_BANK_CARD = re.compile(r"[2-9](?<![\d.].)(?<!\d[ -].)\d{3}(?:[ -]?\d){8,15}(?![\d.]\d)(?!\d)", re.ASCII)
_PHONE = re.compile(
    r"[+(\d](?<![\w.+-].)(?:"
    r"(?:(?<=\+)|(?<=0)0)[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}"  # E.123
    r"|(?<=1)[3-9]\d(?:[ -]?\d{4}){2}"  # a Chinese mobile phone
    r"|(?<=0)\d{2,3}-\d{7,8}(?:-\d{1,5})?"  # a Chinese landline
    r"|(?:(?<=\()\d{3}\) ?|(?<=\d)\d{2}[-.])\d{3}[-.]\d{4}"  # North America
    r")(?![\w-]|\.\d)",
    re.ASCII,  # a Chinese character may stand right beside it
)
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_NAMES = {"keys": "KEY", "email": "EMAIL", "id_card": "ID_CARD", "bank_card": "BANK_CARD", "phone": "PHONE"}
_PLACEHOLDER = re.compile(r"<(?:KEY|EMAIL|ID_CARD|BANK_CARD|PHONE)_\d{1,6}>")


class Found(NamedTuple):
    """Something at `text[start:end]`."""

    start: int
    end: int
    kind: str


def find(text: str, kinds: Collection[str] = KINDS) -> list[Found]:
    """What of `kinds` stands in `text`, in order and without overlaps."""
    found: list[Found] = []
    for kind in KINDS:
        if kind not in kinds:
            continue
        new = [Found(start, end, kind) for start, end in _FINDERS[kind](text)]
        if new:
            found = _merged(found, new)
    return found


def _merged(found: Sequence[Found], new: Sequence[Found]) -> list[Found]:
    """Both, sorted; of `new` what overlaps nothing in `found`."""
    merged: list[Found] = []
    place = 0
    for each in new:
        while place < len(found) and found[place].end <= each.start:
            merged.append(found[place])
            place += 1
        if (place == len(found) or found[place].start >= each.end) and (not merged or merged[-1].end <= each.start):
            merged.append(each)
    return [*merged, *found[place:]]


def _keys(text: str) -> Iterator[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    if any(beginning in text for beginning in _BEGINNINGS):
        spans += [match.span() for match in _KEYS.finditer(text)]
    if "aws" in text.lower():
        spans += [match.span(1) for match in _AWS_SECRET.finditer(text)]
    if "-----BEGIN " in text:
        spans += _blocks(text)
    last = 0
    for start, end in sorted(spans):
        if start >= last:
            yield start, end
            last = end


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Private keys in PEM (RFC 7468); one whose end is missing reaches to where the text or the longest key ends."""
    for match in _PEM.finditer(text):
        if "PRIVATE KEY" not in match[1]:
            continue
        foot = f"-----END {match[1]}-----"
        limit = match.start() + _LONGEST_PEM
        end = text.find(foot, match.end(), limit)
        yield match.start(), end + len(foot) if end >= 0 else min(len(text), limit)


def _emails(text: str) -> Iterator[tuple[int, int]]:
    """RFC 5321 as people write it: no quoted local parts, no addresses by IP."""
    last = place = 0
    while (place := text.find("@", place)) >= 0:
        local = _LOCAL.search(text, max(last, place - 64), place)
        domain = _DOMAIN.match(text, place + 1)
        if local and domain and local[0].strip(".'"):
            start = local.start() + len(local[0]) - len(local[0].lstrip(".'"))
            yield start, domain.end()
            last = domain.end()
        place += 1


def _id_cards(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _ID_CARD.finditer(text) if _is_id_card(match[0]))


def _is_id_card(number: str) -> bool:
    """GB 11643-1999: a date of birth that can be, and a check digit modulo 11."""
    month, day = int(number[10:12]), int(number[12:14])
    if number[6:8] not in ("18", "19", "20") or not (1 <= month <= 12 and 1 <= day <= 31):
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, number[:17], strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def _bank_cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _BANK_CARD.finditer(text):
        digits = [int(character) for character in match[0] if character.isdecimal()]
        if 13 <= len(digits) <= 19 and len(set(digits)) > 1 and _luhn(digits):
            yield match.span()


def _luhn(digits: Sequence[int]) -> bool:
    """ISO/IEC 7812-1, annex B."""
    doubled = (digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2])
    return (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for match in _PHONE.finditer(text):
        if 7 <= sum(character.isdecimal() for character in match[0]) <= 17:
            yield match.span()


_FINDERS: Mapping[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "keys": _keys,
    "email": _emails,
    "id_card": _id_cards,
    "bank_card": _bank_cards,
    "phone": _phones,
}


class Vault:
    """Placeholders of one run and what stands behind them: the same value has the same one everywhere.

    They are numbered in the order in which values are seen, so two vaults that see the same texts in the
    same order agree. `most` bounds the values; further ones are put behind a placeholder that cannot be undone.
    """

    def __init__(
        self, kinds: Collection[str] = KINDS, values: Mapping[str, str] | None = None, *, most: int = 2000
    ) -> None:
        self._kinds = frozenset(kinds)
        self._most = most
        self._values = dict(values or {})
        self._names = {value: name for name, value in self._values.items()}
        self._counts = dict.fromkeys(_NAMES.values(), 0)
        for name in self._values:
            self._reserve(name)

    @property
    def values(self) -> Mapping[str, str]:
        """What stands behind each placeholder."""
        return self._values

    def redact(self, text: str) -> str:
        """`text` with placeholders. A placeholder that stands there already is no longer free for another value."""
        for match in _PLACEHOLDER.finditer(text):
            self._reserve(match[0])
        parts, last = [], 0
        for start, end, kind in find(text, self._kinds):
            parts += [text[last:start], self._name(kind, text[start:end])]
            last = end
        if not parts:
            return text
        # What was glued to a value that is gone now stands by itself: a known value must not stay there.
        return self.cover("".join([*parts, text[last:]]), unknown=False)

    def cover(self, text: str, *, unknown: bool = True) -> str:
        """`text` with placeholders for what is known; what is not goes for good, or stays when `unknown` is False."""
        parts, last = [], 0
        for start, end, kind in find(text, self._kinds):
            name = self._names.get(text[start:end], f"<{_NAMES[kind]}>" if unknown else None)
            if name is not None:
                parts += [text[last:start], name]
                last = end
        return "".join([*parts, text[last:]]) if parts else text

    def restore(self, text: str, *, in_json: bool = False) -> str:
        """`text` with the values back in their places, in JSON as it has them; placeholders that are not known stay."""
        if in_json:
            return _PLACEHOLDER.sub(lambda match: _quoted(self._values.get(match[0], match[0])), text)
        return _PLACEHOLDER.sub(lambda match: self._values.get(match[0], match[0]), text)

    def unknown(self, text: str) -> list[str]:
        """Placeholders in `text` behind which nothing is known."""
        return [name for name in _PLACEHOLDER.findall(text) if name not in self._values]

    def _name(self, kind: str, value: str) -> str:
        if value in self._names:
            return self._names[value]
        label = _NAMES[kind]
        if len(self._values) >= self._most:
            return f"<{label}>"
        self._counts[label] += 1
        name = f"<{label}_{self._counts[label]}>"
        self._values[name] = value
        self._names[value] = name
        return name

    def _reserve(self, name: str) -> None:
        label, _, number = name[1:-1].rpartition("_")
        self._counts[label] = max(self._counts[label], int(number))


def unnumbered(text: str) -> str:
    """`text` whose placeholders mean nobody: the numbers of one run are not those of another."""
    return _PLACEHOLDER.sub(lambda match: f"{match[0].rpartition('_')[0]}>", text)


def hide(text: str, kinds: Collection[str] = KINDS) -> str:
    """`text` with what of `kinds` stands in it gone for good: `<EMAIL>`."""
    return Vault(kinds, most=0).redact(text)


def in_json(text: str, change: Callable[[str], str]) -> str:
    """`change` applied to the texts in an object or a list of JSON, so that it stays one; else to the whole."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            return change(text)
        new = each_text(value, change)
        return text if new == value else msgspec.json.encode(new).decode()
    return change(text)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with `change` applied to every text in it, the keys of objects too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): each_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [each_text(item, change) for item in value]
    return value

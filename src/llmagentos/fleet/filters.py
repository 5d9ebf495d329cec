"""A small language that chooses nodes by their facts: `os=debian and mem>4GiB and not gpu`.

    expression   = term { "or" term }
    term         = factor { "and" factor }
    factor       = "not" factor | "(" expression ")" | fact [ operator value | "in" "(" value { "," value } ")" ]
    operator     = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~"

A fact alone asks whether it is there and not zero or empty. Text is compared without case; `~` takes wildcards
(`name~web*`). Numbers may have a size's unit (KiB to TiB, kB to TB, also K, M, G, T for the binary ones) or one of
time (s, m, h, d). A fact that a node has not told is nowhere equal to anything. `label.NAME` are labels,
`module.NAME` is the state of a module, `extra.NAME` what a node says beside. Nothing in an expression is ever run.
"""

from __future__ import annotations

import fnmatch
import operator
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from llmagentos.api.nodes import Facts, Heartbeat, NodeSummary
from llmagentos.core.errors import InvalidInput, nearest

Value = str | float | frozenset[str]
Values = Mapping[str, Value]
Predicate = Callable[[Values], bool]

MAX_LENGTH = 1000
MAX_DEPTH = 20

FACTS = (
    "name", "hostname", "state", "availability", "os", "os_family", "os_name", "os_version", "kernel", "arch",
    "cpus", "mem", "mem_free", "disk", "disk_free", "load", "gpu", "gpus", "queue", "modules", "user", "python",
    "ansible", "version", "uptime", "address", "group",
)  # fmt: skip
_FAMILIES = ("label", "module", "extra")
_ALIASES = {"memory": "mem", "cpu": "cpus", "architecture": "arch", "groups": "group", "addresses": "address"}

_UNITS = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12} | {
    unit + suffix: 1024.0**power for power, unit in enumerate("kmgt", 1) for suffix in ("", "ib")
}
_TIMES = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TOKEN = re.compile(
    r"""\s*(?:(?P<operator><=|>=|!=|==|!~|[=<>~(),])|"(?P<quoted>[^"]*)"|'(?P<single>[^']*)'"""
    r"""|(?P<word>[^\s=<>~!(),"']+))"""
)
_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)\s*([A-Za-z]{0,3})")
_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class FilterError(InvalidInput):
    """The expression is not one; `details["column"]` counts from 1."""

    code = "bad_filter"


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    column: int
    kind: str  # operator, word, quoted, end


def parse(text: str) -> Predicate:
    """The predicate that `text` stands for. Raises `FilterError` with the column."""
    parser = _Parser(text)
    found = parser.expression(0)
    if parser.next.kind != "end":
        parser.fail(f"expected `and`, `or` or the end, not {parser.next.text!r}")
    return found


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > MAX_LENGTH:
            raise FilterError(f"a filter of {len(text)} characters is too long: at most {MAX_LENGTH}", column=1)
        self._tokens = list(_tokens(text))
        self._at = 0

    @property
    def next(self) -> _Token:
        return self._tokens[self._at]

    def fail(self, message: str, *, hint: str | None = None, token: _Token | None = None) -> NoReturn:
        _fail(self._text, (token or self.next).column, message, hint)

    def expression(self, depth: int) -> Predicate:
        parts = [self._term(depth)]
        while self._took("or"):
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else lambda values: any(part(values) for part in parts)

    def _term(self, depth: int) -> Predicate:
        parts = [self._factor(depth)]
        while self._took("and"):
            parts.append(self._factor(depth))
        return parts[0] if len(parts) == 1 else lambda values: all(part(values) for part in parts)

    def _factor(self, depth: int) -> Predicate:
        if depth > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH}")
        if self._took("not"):
            inner = self._factor(depth + 1)
            return lambda values: not inner(values)
        if self._took_operator("("):
            inner = self.expression(depth + 1)
            if not self._took_operator(")"):
                self.fail("expected `)`")
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        name = self._fact()
        if self._took("in"):
            return self._membership(name)
        token = self.next
        if token.kind != "operator" or token.text in "(),":
            return lambda values: bool(values.get(name))
        self._at += 1
        value = self._value()
        sign = "=" if token.text == "==" else token.text
        if sign in _ORDER:
            return self._ordered(name, sign, value)
        if sign in ("~", "!~"):
            pattern = re.compile(fnmatch.translate(value.text.lower())).match
            return _negated(lambda values: any(pattern(text) for text in _texts(values.get(name))), sign == "!~")
        return _negated(_equal(name, value.text), sign == "!=")

    def _membership(self, name: str) -> Predicate:
        if not self._took_operator("("):
            self.fail("expected `(` after `in`")
        options = [_equal(name, self._value().text)]
        while self._took_operator(","):
            options.append(_equal(name, self._value().text))
        if not self._took_operator(")"):
            self.fail("expected `,` or `)`")
        return lambda values: any(option(values) for option in options)

    def _ordered(self, name: str, sign: str, value: _Token) -> Predicate:
        compare = _ORDER[sign]
        wanted = number(value.text, time_units=name == "uptime")
        if wanted is None:
            if name not in ("os_version", "version", "python", "ansible", "kernel") or not _version(value.text):
                self.fail(f"{value.text!r} is no number", hint="like 4, 1.5, 512MiB or 4GiB", token=value)
            return lambda values: _compare_versions(values.get(name), value.text, sign)
        if name in ("os_version", "version", "python", "ansible", "kernel"):
            return lambda values: _compare_versions(values.get(name), value.text, sign)

        def test(values: Values) -> bool:
            found = values.get(name)
            known = found if isinstance(found, float) else number(found) if isinstance(found, str) else None
            return known is not None and compare(known, wanted)

        return test

    def _fact(self) -> str:
        token = self.next
        if token.kind != "word":
            self.fail("expected a fact" + (f", not {token.text!r}" if token.text else ""))
        self._at += 1
        name = token.text.lower()
        family, dot, rest = token.text.partition(".")
        if dot and family.lower() in _FAMILIES and rest:
            return f"{family.lower()}.{rest}"
        name = _ALIASES.get(name, name)
        if name not in FACTS:
            close = nearest(name, [*FACTS, *_ALIASES])
            hint = f"did you mean {close!r}?" if close else f"facts: {', '.join(FACTS)}, label.NAME, module.NAME"
            self.fail(f"there is no fact {token.text[:60]!r}", hint=hint, token=token)
        return name

    def _value(self) -> _Token:
        token = self.next
        if token.kind not in ("word", "quoted"):
            self.fail("expected a value" + (f", not {token.text!r}" if token.text else ""))
        self._at += 1
        return token

    def _took(self, word: str) -> bool:
        if self.next.kind == "word" and self.next.text.lower() == word:
            self._at += 1
            return True
        return False

    def _took_operator(self, text: str) -> bool:
        if self.next.kind == "operator" and self.next.text == text:
            self._at += 1
            return True
        return False


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            _fail(text, at + 1, f"did not expect {text[at]!r}", "text with blanks or signs goes into quotes")
        kind = match.lastgroup or ""
        column = match.start(kind) + 1 - (kind in ("quoted", "single"))
        found.append(_Token(match[kind], column, "quoted" if kind == "single" else kind))
        at = match.end()
    return [*found, _Token("", len(text) + 1, "end")]


def _fail(text: str, column: int, message: str, hint: str | None) -> NoReturn:
    raise FilterError(f"filter, column {column}: {message}", hint=hint, column=column)


def _negated(predicate: Predicate, negate: bool) -> Predicate:
    return (lambda values: not predicate(values)) if negate else predicate


def _equal(name: str, text: str) -> Predicate:
    wanted, amount = text.lower(), number(text)

    def test(values: Values) -> bool:
        found = values.get(name)
        if isinstance(found, float):
            return amount is not None and found == amount
        return wanted in _texts(found)

    return test


def _texts(found: Value | None) -> frozenset[str]:
    if found is None:
        return frozenset()
    if isinstance(found, float):
        return frozenset({f"{found:g}"})
    return frozenset({found.lower()}) if isinstance(found, str) else frozenset(text.lower() for text in found)


def number(text: str, *, time_units: bool = False) -> float | None:
    """The number in `text`, in bytes or seconds when it has a unit; None when it is none."""
    match = _NUMBER.fullmatch(text)
    factor = (_TIMES if time_units else _UNITS).get(match[2].lower(), None) if match else None
    if match is not None and time_units and not match[2]:
        factor = 1.0
    return float(match[1]) * factor if match is not None and factor is not None else None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:6] if len(part) < 10)


def _compare_versions(found: Value | None, wanted: str, sign: str) -> bool:
    known = _version(found) if isinstance(found, str) else ()
    if not known:
        return False
    theirs = _version(wanted)
    width = max(len(known), len(theirs))
    left, right = known + (0,) * (width - len(known)), theirs + (0,) * (width - len(theirs))
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign]


# --- nodes ------------------------------------------------------------------------------------


def values(summary: NodeSummary, facts: Facts, beat: Heartbeat) -> Values:
    """What expressions see of a node."""
    found: dict[str, Value] = {
        "name": summary.name,
        "hostname": facts.hostname,
        "state": summary.state,
        "availability": summary.availability,
        "os": facts.os_id or facts.os,
        "os_family": frozenset([facts.os_id, *facts.os_like.split()]) - {""},
        "os_name": facts.os,
        "os_version": facts.os_version,
        "kernel": facts.kernel,
        "arch": facts.architecture,
        "cpus": float(facts.cpus),
        "mem": float(facts.memory_bytes),
        "mem_free": float(beat.memory_available_bytes),
        "disk": float(facts.disk_bytes),
        "disk_free": float(beat.disk_free_bytes),
        "gpu": frozenset(facts.gpus),
        "gpus": float(len(facts.gpus)),
        "queue": float(summary.queue),
        "modules": float(len(summary.modules)),
        "user": facts.user,
        "python": facts.python,
        "ansible": facts.ansible,
        "version": facts.version,
        "address": frozenset(facts.addresses),
        "group": frozenset(summary.groups),
    }
    if beat.load:
        found["load"] = beat.load[0]
    if facts.boot:
        found["uptime"] = max(0.0, time.time() - facts.boot)
    found |= {f"label.{name}": text for name, text in summary.labels.items()}
    found |= {f"module.{unit.name}": unit.state for unit in summary.modules}
    found |= {f"extra.{name}": text for name, text in facts.extra.items()}
    return found


def groups(facts: Facts, labels: Mapping[str, str]) -> list[str]:
    """The groups of a node that its facts and labels make: `os_debian`, `arch_x86_64`, `gpu`, `label_env_prod`."""
    found = {f"os_{facts.os_id}"} if facts.os_id else set()
    found |= {f"os_family_{name}" for name in (facts.os_id, *facts.os_like.split()) if name}
    if facts.os_id and facts.os_version:
        found.add(f"os_{facts.os_id}_{facts.os_version.partition('.')[0]}")
    if facts.architecture:
        found.add(f"arch_{facts.architecture}")
    if facts.gpus:
        found.add("gpu")
    found |= {f"label_{name}_{text}" if text else f"label_{name}" for name, text in labels.items()}
    return sorted(re.sub(r"[^A-Za-z0-9_]", "_", name).lower() for name in found)

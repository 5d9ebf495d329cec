"""The survey of a job template: what it may ask, and whether the answers fit. Blocks while a regex is tried."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmagentos.api.templates import BadParameter, Parameter
from llmagentos.core.errors import nearest
from llmagentos.core.matching import TooSlow, matches

MAX_TEXT = 64 * 1024
MAX_REGEX = 500
MAX_INT = 2**63
_TEXTS = frozenset({"string", "secret"})
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0", ""})


def check(parameters: Sequence[Parameter]) -> None:
    """Raises `BadParameter` for a survey that cannot be answered."""
    seen: set[str] = set()
    for parameter in parameters:
        if parameter.name in seen:
            raise _bad(parameter, "is asked for twice")
        seen.add(parameter.name)
        _check_one(parameter)


def _check_one(parameter: Parameter) -> None:
    chosen = parameter.type in ("choice", "multichoice")
    if chosen and not parameter.choices:
        raise _bad(parameter, "has no choices")
    if parameter.choices and not chosen:
        raise _bad(parameter, f"has choices, which a {parameter.type} has not", hint="type: choice")
    if parameter.min is not None and parameter.max is not None and parameter.min > parameter.max:
        raise _bad(parameter, f"has the least {parameter.min:g} above the most {parameter.max:g}")
    if parameter.regex is not None:
        if parameter.type not in _TEXTS:
            raise _bad(parameter, f"has a regex, which a {parameter.type} has not")
        if len(parameter.regex) > MAX_REGEX:
            raise _bad(parameter, f"has a regex of over {MAX_REGEX} characters")
        try:
            re.compile(parameter.regex)
        except (re.error, OverflowError, RecursionError) as error:
            raise _bad(parameter, f"has the regex {parameter.regex!r}, which is none: {error}") from None
    if parameter.default is not None:
        if parameter.type == "secret":
            raise _bad(parameter, "is a secret and has a default, which everybody could read")
        fit(parameter, parameter.default)


def answers(parameters: Sequence[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that `given` stands for, with defaults. Raises `BadParameter` that names the first bad one."""
    known = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean {close!r}?" if close else f"asked for: {', '.join(known) or 'nothing'}"
            raise BadParameter(f"there is no parameter {name[:80]!r}", hint=hint, parameter=name[:80])
    found: dict[str, Any] = {}
    for name, parameter in known.items():
        value = given.get(name)
        if value is None:
            value = parameter.default
        if value is not None:
            found[name] = fit(parameter, value)
        elif parameter.required:
            raise _bad(parameter, "is required")
    return found


def fit(parameter: Parameter, value: Any) -> Any:
    """`value` when it fits. Raises `BadParameter`."""
    if parameter.type in _TEXTS:
        return _text(parameter, value)
    if parameter.type == "bool":
        if not isinstance(value, bool):
            raise _wrong(parameter, value, "true or false")
        return value
    if parameter.type in ("int", "float"):
        return _number(parameter, value)
    if parameter.type == "choice":
        return _choice(parameter, value)
    if not isinstance(value, list):
        raise _wrong(parameter, value, "a list of choices")
    if len(set(map(str, value))) != len(value):
        raise _bad(parameter, "names a choice twice")
    _within(parameter, len(value), "choices")
    return [_choice(parameter, each) for each in value]


def _text(parameter: Parameter, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(parameter, value, "a text")
    if len(value) > MAX_TEXT:
        raise _bad(parameter, f"has {len(value)} characters: at most {MAX_TEXT}")
    _within(parameter, len(value), "characters")
    if parameter.regex is not None and not _matches(parameter, parameter.regex, value):
        shown = "it" if parameter.type == "secret" else repr(value[:80])
        raise _bad(parameter, f"has to match {parameter.regex!r}: {shown} does not")
    return value


def _matches(parameter: Parameter, regex: str, value: str) -> bool:
    try:
        return matches(regex, value)
    except TooSlow:
        raise _bad(
            parameter, f"cannot be compared with {regex!r} in a second", hint="a regex without repeats inside repeats"
        ) from None


def _number(parameter: Parameter, value: Any) -> int | float:
    if isinstance(value, int) and abs(value) >= MAX_INT:  # more than JSON's readers agree on
        raise _bad(parameter, "has too many digits")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong(parameter, value, "a number")
    if parameter.type == "int" and not isinstance(value, int):
        raise _wrong(parameter, value, "a whole number")
    _within(parameter, value, "")
    return value if parameter.type == "int" else float(value)


def _choice(parameter: Parameter, value: Any) -> str:
    if not isinstance(value, str) or value not in parameter.choices:
        raise _wrong(parameter, value, f"one of {', '.join(parameter.choices[:20])}")
    return value


def _within(parameter: Parameter, value: float, unit: str) -> None:
    said = f"{value:g} {unit}".strip()
    if parameter.min is not None and value < parameter.min:
        raise _bad(parameter, f"has to be at least {parameter.min:g} {unit}".strip() + f", not {said}")
    if parameter.max is not None and value > parameter.max:
        raise _bad(parameter, f"may be at most {parameter.max:g} {unit}".strip() + f", not {said}")


def from_text(parameter: Parameter, texts: Sequence[str]) -> Any:
    """What a form or a command line says, as a value; None for nothing. Raises `BadParameter`."""
    if parameter.type == "multichoice":
        return [part.strip() for text in texts for part in text.split(",") if part.strip()]
    text = texts[-1] if texts else ""
    if parameter.type == "bool":
        if text.lower() not in _TRUE | _FALSE:
            raise _wrong(parameter, text, "true or false")
        return text.lower() in _TRUE
    if not text:
        return None
    if parameter.type in ("int", "float"):
        try:
            return int(text) if parameter.type == "int" else float(text)
        except ValueError:
            raise _wrong(parameter, text, "a number" if parameter.type == "float" else "a whole number") from None
    return text


def _wrong(parameter: Parameter, value: Any, wanted: str) -> BadParameter:
    shown = "that" if parameter.type == "secret" else repr(value)[:80]
    return _bad(parameter, f"has to be {wanted}, not {shown}")


def _bad(parameter: Parameter, what: str, *, hint: str | None = None) -> BadParameter:
    return BadParameter(f"the parameter {parameter.name!r} {what}", hint=hint, parameter=parameter.name)

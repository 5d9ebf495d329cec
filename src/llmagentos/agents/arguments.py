"""Arguments of a tool against its JSON Schema, with one clear sentence for the model about what is wrong.

The keywords that describe parameters are checked (JSON Schema 2020-12: type, enum, const, properties, required,
additionalProperties, items, bounds, anyOf, oneOf, allOf, $ref within the schema). Others are left to the tool,
`pattern` too: a schema from elsewhere must not bring an expression that takes for ever.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from llmagentos.core.errors import nearest

_DEEPEST = 32
_MOST = 20_000
_SHOWN = 80
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "object": (dict,),
    "array": (list,),
    "boolean": (bool,),
    "null": (type(None),),
    "number": (int, float),
    "integer": (int, float),
}
_BOUNDS: Sequence[tuple[str, Callable[[float, float], bool], str]] = (
    ("minimum", operator.ge, "at least"),
    ("maximum", operator.le, "at most"),
    ("exclusiveMinimum", operator.gt, "more than"),
    ("exclusiveMaximum", operator.lt, "less than"),
)
_LENGTHS = {str: ("minLength", "maxLength", "characters"), list: ("minItems", "maxItems", "items")}


def misfit(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
    """What is wrong with `arguments`; None when they fit."""
    return _wrong(dict(arguments), schema, "", _Check(schema), 0)


def unfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with any JSON value; None when it fits."""
    return _wrong(value, schema, "", _Check(schema), 0)


@dataclass(slots=True)
class _Check:
    """One check; `left` keeps a schema whose parts refer to each other from taking for ever."""

    root: Mapping[str, Any]
    left: int = _MOST


def _wrong(value: Any, schema: Any, where: str, check: _Check, depth: int) -> str | None:
    """The first fault of `value`, which stands at `where`."""
    if schema is False:
        return f"{where or 'the object'} may not be given"
    check.left -= 1
    if not isinstance(schema, Mapping) or depth > _DEEPEST or check.left < 0:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return _wrong(value, _target(reference, check.root), where, check, depth + 1)
    return (
        _wrong_kind(value, schema, where)
        or _wrong_size(value, schema, where)
        or _wrong_parts(value, schema, where, check, depth)
        or _wrong_choice(value, schema, where, check, depth)
    )


def _target(reference: str, root: Mapping[str, Any]) -> Any:
    """What a `$ref` within the schema refers to (RFC 6901); anything goes where it cannot be found."""
    if not reference.startswith("#"):
        return True
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return True if found is None else found


def _wrong_kind(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    wanted = schema.get("type")
    kinds = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
    if kinds and not any(_is(value, str(kind)) for kind in kinds):
        return f"{where or 'the whole'} has to be {' or '.join(map(str, kinds))}, not {_shown(value)}"
    if "const" in schema and not _same(value, schema["const"]):
        return f"{where} has to be {_shown(schema['const'])}, not {_shown(value)}"
    choices = schema.get("enum")
    if isinstance(choices, list) and not any(_same(value, choice) for choice in choices):
        return f"{where} has to be one of {', '.join(map(_shown, choices[:20]))}, not {_shown(value)}"
    return None


def _is(value: Any, kind: str) -> bool:
    if kind not in _TYPES:
        return True
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind]) and not (
        kind == "integer" and isinstance(value, float) and not value.is_integer()
    )


def _same(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _wrong_size(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        for keyword, fits, words in _BOUNDS:
            bound = schema.get(keyword)
            if isinstance(bound, int | float) and not isinstance(bound, bool) and not fits(value, bound):
                return f"{where} has to be {words} {bound}, not {_shown(value)}"
    for kind, (least, most, unit) in _LENGTHS.items():
        if not isinstance(value, kind):
            continue
        if isinstance(bound := schema.get(least), int) and len(value) < bound:
            return f"{where} needs at least {bound} {unit}, not {len(value)}"
        if isinstance(bound := schema.get(most), int) and len(value) > bound:
            return f"{where} has {len(value)} {unit}, more than {bound}"
    return None


def _wrong_parts(value: Any, schema: Mapping[str, Any], where: str, check: _Check, depth: int) -> str | None:
    if isinstance(value, list) and "items" in schema:
        found = (_wrong(item, schema["items"], f"{where}[{i}]", check, depth + 1) for i, item in enumerate(value))
        return next((fault for fault in found if fault is not None), None)
    if not isinstance(value, dict):
        return None
    properties = schema.get("properties")
    known: Mapping[str, Any] = properties if isinstance(properties, Mapping) else {}
    for name in _strings(schema.get("required")):
        if name not in value:
            return f"{_at(where, name)} is missing"
    other = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name not in known and other is False and not schema.get("patternProperties"):
            close = nearest(name, known)
            return f"there is no {_at(where, name)}" + (f"; did you mean {close!r}?" if close else "")
        fault = _wrong(item, known.get(name, other), _at(where, name), check, depth + 1)
        if fault is not None:
            return fault
    return None


def _wrong_choice(value: Any, schema: Mapping[str, Any], where: str, check: _Check, depth: int) -> str | None:
    for part in _schemas(schema.get("allOf")):
        if (fault := _wrong(value, part, where, check, depth + 1)) is not None:
            return fault
    for keyword in ("anyOf", "oneOf"):
        faults = [_wrong(value, part, where, check, depth + 1) for part in _schemas(schema.get(keyword))]
        if faults and None not in faults:
            return " or ".join(dict.fromkeys(str(fault) for fault in faults[:4]))
    return None


def _schemas(found: Any) -> Sequence[Any]:
    return found if isinstance(found, list) else ()


def _strings(found: Any) -> Sequence[str]:
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else ()


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."

"""A YAML document checked against a msgspec type, with the line of every fault.

msgspec says only where in the value a fault is; whoever edits a file wants file:line, what was
expected and the nearest valid key, for all faults at once. So this walks the YAML nodes (which know
their lines) beside the type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
import yaml
from msgspec import inspect

from llmagentos.core.errors import ConfigError, nearest

MAX_BYTES = 1024 * 1024
# Aliases are shared nodes: a small file can stand for a huge value ("billion laughs").
MAX_NODES = 100_000
MAX_DEPTH = 50

Place = tuple[str | int, ...]
"""Keys and list positions from the root."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NAMES = {
    "tag:yaml.org,2002:str": "a string",
    "tag:yaml.org,2002:int": "a whole number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:bool": "true or false",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "a date",
}
_SECRET_KEY = re.compile(r"password|secret|token|api_?key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong, and where."""

    line: int  # from 1
    message: str


class InvalidDocument(ConfigError):
    """A file that does not fit its schema; the detail `faults` is all that is wrong with it."""

    code = "invalid_document"

    @classmethod
    def of(cls, source: str, faults: Iterable[Fault]) -> Self:
        """The error that names every fault as file:line."""
        ordered = sorted(faults, key=lambda fault: fault.line)
        return cls("\n".join(f"{source}:{fault.line}: {fault.message}" for fault in ordered), faults=ordered)

    @property
    def faults(self) -> list[Fault]:
        """All that is wrong, by line."""
        return list(self.details.get("faults", ()))


def compose(text: str, source: str) -> yaml.Node | None:
    """The root node of `text`; None for an empty document. Raises `InvalidDocument` for what is not YAML."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{source}: the file is over {MAX_BYTES} bytes")
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InvalidDocument.of(source, [Fault(line, f"not YAML: {error.problem or error.context}")]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidDocument.of(source, [Fault(1, f"not YAML: {' '.join(str(error).split())}")]) from None
    finally:
        loader.dispose()
    return node


def read_text(path: Path) -> str:
    """The text of a YAML file. Raises `ConfigError` for one that cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from None


class Checker:
    """Checks one document; collects faults and builds the plain value.

    A string whose type says `Meta(extra={"path": True})` is made absolute from the directory `base`.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self.faults: list[Fault] = []
        self.lines: dict[Place, int] = {}
        self._nodes = 0

    def check(self, node: yaml.Node, kind: inspect.Type) -> Any:
        """The plain value of `node`, compared with the type `kind`; faults land in `faults`."""
        return self._value(node, kind, ())

    def _fault(self, node: yaml.Node, message: str) -> None:
        self.faults.append(Fault(node.start_mark.line + 1, message))

    def _value(self, node: yaml.Node, kind: inspect.Type, path: Place) -> Any:
        if isinstance(kind, inspect.Metadata):
            value = self._value(node, kind.type, path)
            named = isinstance(value, str) and (kind.extra or {}).get("path")
            return str(self._base / Path(value).expanduser()) if named else value
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            if self._nodes <= MAX_NODES + 1:
                self._fault(node, "the document is too large or too deep once its aliases are followed")
            self._nodes = MAX_NODES + 1
            return None
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(kind, inspect.UnionType):
            return self._union(node, kind, path)
        if isinstance(kind, inspect.StructType):
            return self._struct(node, kind, path)
        if isinstance(kind, inspect.DictType):
            return self._dict(node, kind, path)
        if isinstance(kind, inspect.ListType):
            return self._list(node, kind, path)
        if isinstance(kind, inspect.AnyType):
            return self._anything(node, kind, path)
        return self._scalar(node, kind, path)

    def _struct(self, node: yaml.Node, kind: inspect.StructType, path: Place) -> Any:
        if not isinstance(node, yaml.MappingNode):
            self._mismatch(node, kind, path)
            return None
        known = {field.encode_name: field for field in kind.fields}
        found: dict[str, Any] = {}
        for key, key_node, value in self._entries(node, path):
            if key == kind.tag_field:
                found[key] = kind.tag
            elif key in known:
                found[key] = self._value(value, known[key].type, (*path, key))
            else:
                self._fault(key_node, _unknown_key(key, known, path))
        for name, field in known.items():
            if field.required and name not in found:
                self._fault(node, f"{_shown(path)} needs {name!r}: {expected(field.type)}")
        return found

    def _entries(self, node: yaml.MappingNode, path: Place) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        seen: dict[str, int] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                self._fault(key_node, f"{_shown(path)}: a key must be a plain name")
                continue
            key = key_node.value
            if key in seen:
                self._fault(key_node, f"{_shown((*path, key))} stands here twice (first on line {seen[key]})")
                continue
            seen[key] = key_node.start_mark.line + 1
            yield key, key_node, value

    def _dict(self, node: yaml.Node, kind: inspect.DictType, path: Place) -> Any:
        if not isinstance(node, yaml.MappingNode):
            self._mismatch(node, kind, path)
            return None
        found = {}
        for key, key_node, value in self._entries(node, path):
            if (wrong := _violated(key, kind.key_type)) is not None:
                self._fault(key_node, f"{_shown(path)}: expected {wrong}, not {key!r}")
            found[key] = self._value(value, kind.value_type, (*path, key))
        return found

    def _list(self, node: yaml.Node, kind: inspect.ListType, path: Place) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            self._mismatch(node, kind, path)
            return None
        if kind.min_length and len(node.value) < kind.min_length:
            self._fault(node, f"{_shown(path)} needs at least {kind.min_length} entry")
        return [self._value(item, kind.item_type, (*path, i)) for i, item in enumerate(node.value)]

    def _anything(self, node: yaml.Node, kind: inspect.AnyType, path: Place) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {key: self._value(value, kind, (*path, key)) for key, _, value in self._entries(node, path)}
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, kind, (*path, i)) for i, item in enumerate(node.value)]
        return _plain(node) if isinstance(node, yaml.ScalarNode) else None

    def _union(self, node: yaml.Node, kind: inspect.UnionType, path: Place) -> Any:
        tagged = {c.tag: c for c in kind.types if isinstance(c, inspect.StructType) and c.tag_field}
        if tagged and isinstance(node, yaml.MappingNode):
            return self._tagged(node, tagged, path)
        for choice in kind.types:
            if _fits(node, choice):
                return self._value(node, choice, path)
        self._mismatch(node, kind, path)
        return None

    def _tagged(self, node: yaml.MappingNode, choices: dict[Any, inspect.StructType], path: Place) -> Any:
        field = str(next(iter(choices.values())).tag_field)
        given = next((v for k, v in node.value if k.value == field), None)
        listed = ", ".join(map(str, choices))
        if given is None:
            self._fault(node, f"{_shown(path)} needs {field!r}: one of {listed}")
            return None
        if not isinstance(given, yaml.ScalarNode) or given.value not in choices:
            shown = given.value if isinstance(given, yaml.ScalarNode) else _kind_of(given)
            close = nearest(str(shown), map(str, choices))
            more = f"; did you mean {close!r}?" if close else ""
            self._fault(given, f"{_shown((*path, field))}: expected one of {listed}, not {shown!r}{more}")
            return None
        return self._struct(node, choices[given.value], path)

    def _scalar(self, node: yaml.Node, kind: inspect.Type, path: Place) -> Any:
        if not isinstance(node, yaml.ScalarNode) or not _fits(node, kind):
            self._mismatch(node, kind, path)
            return None
        value = _plain(node)
        if isinstance(kind, inspect.FloatType):
            value = float(value)
        if (wrong := _violated(value, kind)) is not None:
            self._fault(node, f"{_shown(path)}: expected {wrong}, not {value!r}")
        return value

    def _mismatch(self, node: yaml.Node, kind: inspect.Type, path: Place) -> None:
        if _wants_secret(kind) and isinstance(node, yaml.ScalarNode):
            self._fault(
                node,
                f"{_shown(path)}: a secret does not stand in this file: write {{env: NAME}} to take it from the "
                "environment or {file: PATH} to take it from a file",
            )
            return
        secret = any(isinstance(part, str) and _SECRET_KEY.search(part) for part in path)
        given = f" {_plain(node)!r}" if isinstance(node, yaml.ScalarNode) and not secret and node.value else ""
        self._fault(node, f"{_shown(path)}: expected {expected(kind)}, not {_kind_of(node)}{given}")


def expected(kind: inspect.Type) -> str:
    """A type in words."""
    match kind:
        case inspect.Metadata():
            return expected(kind.type)
        case inspect.UnionType():
            options = dict.fromkeys(expected(choice) for choice in kind.types)
            return " or ".join(options)
        case inspect.LiteralType():
            return "one of " + ", ".join(str(value) for value in kind.values)
        case inspect.StructType():
            if kind.cls.__name__ == "SecretRef":
                return "{env: NAME} or {file: PATH}"
            return f"a mapping with {', '.join(field.encode_name for field in kind.fields)}"
        case inspect.DictType():
            return "a mapping by name"
        case inspect.ListType():
            return f"a list, each {expected(kind.item_type)}"
        case inspect.IntType() | inspect.FloatType():
            return _number(kind)
        case inspect.BoolType():
            return "true or false"
        case inspect.NoneType():
            return "nothing"
        case _:
            return "a string"


def _number(kind: inspect.IntType | inspect.FloatType) -> str:
    word = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
    bounds = [
        f"{text} {bound}"
        for text, bound in (("at least", kind.ge), ("over", kind.gt), ("at most", kind.le), ("under", kind.lt))
        if bound is not None
    ]
    return " ".join([word, " and ".join(bounds)]).strip()


def _fits(node: yaml.Node, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _fits(node, kind.type)
    if isinstance(kind, inspect.StructType | inspect.DictType):
        return isinstance(node, yaml.MappingNode)
    if isinstance(kind, inspect.ListType):
        return isinstance(node, yaml.SequenceNode)
    if not isinstance(node, yaml.ScalarNode):
        return False
    value = _plain(node)
    match kind:
        case inspect.LiteralType():
            return value in kind.values
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case inspect.NoneType():
            return value is None
        case inspect.StrType():
            return isinstance(value, str)
        case _:
            raise TypeError(f"the configuration's schema uses a type this checker lacks: {kind}")


def _plain(node: yaml.ScalarNode) -> Any:
    """The scalar as a Python value; a date stays the text it was written as."""
    if node.tag not in _NAMES or node.tag.endswith(("str", "timestamp")):
        return node.value
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError):
        return node.value


def _violated(value: Any, kind: inspect.Type) -> str | None:
    """The rule that `value` breaks, in words."""
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        ok = (
            (kind.ge is None or value >= kind.ge)
            and (kind.gt is None or value > kind.gt)
            and (kind.le is None or value <= kind.le)
            and (kind.lt is None or value < kind.lt)
        )
        finite = value == value and abs(value) != float("inf")
        return None if ok and finite else _number(kind)
    if isinstance(kind, inspect.StrType) and kind.pattern and not re.search(kind.pattern, value):
        web = kind.pattern.startswith("^https?://")
        return "an address that begins with http:// or https://" if web else f"a name like {kind.pattern}"
    return None


def _wants_secret(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _wants_secret(kind.type)
    if isinstance(kind, inspect.UnionType):
        return any(_wants_secret(choice) for choice in kind.types)
    return isinstance(kind, inspect.StructType) and kind.cls.__name__ == "SecretRef"


def _unknown_key(key: str, known: dict[str, inspect.Field], path: Place) -> str:
    close = nearest(key, known)
    more = f"; did you mean {close!r}?" if close else f"; known here: {', '.join(known)}"
    return f"unknown key {_shown((*path, key))!r}{more}"


def _kind_of(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return _NAMES.get(node.tag, "a string")


def _shown(path: Place) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the document"


def decode(value: Any, kind: Any) -> Any:
    """The checked plain value as `kind`. Raises `ValueError` for a rule that only the type itself knows."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None

"""A method's parameters and result, out of its type hints: decoded, checked, described as JSON Schema.

Hints may be whatever msgspec knows (built-ins, dataclasses, `msgspec.Struct`, TypedDict, enums,
datetimes, unions, ...) and pydantic models. A parameter without a hint takes any JSON value.
"""

from __future__ import annotations

import collections.abc
import inspect
import json
import re
import typing
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from llmagentos.core.errors import ConfigError, nearest
from llmagentos.services.errors import BadArguments

_STREAMS = (
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.Iterable,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
)
_UNKNOWN_FIELD = re.compile(r"unknown field `(.*?)`(?! - at)")


class Parameters:
    """The parameters of one method."""

    def __init__(self, where: str, function: Callable[..., Any], hints: dict[str, Any]) -> None:
        self._where = where
        self.names: list[str] = []
        self._positional: list[str] = []
        self._required: list[str] = []
        self._defaults: dict[str, Any] = {}
        fields = [self._field(parameter, hints) for parameter in _parameters(where, function)]
        self._struct = msgspec.defstruct("arguments", fields, kw_only=True, forbid_unknown_fields=True)
        self._decoder: msgspec.json.Decoder[Any] = _supported(
            where, lambda: msgspec.json.Decoder(self._struct, dec_hook=from_json)
        )

    def _field(self, parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
        name, hint = parameter.name, hints.get(parameter.name, Any)
        self.names.append(name)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            self._positional.append(name)
        if parameter.default is parameter.empty:
            self._required.append(name)
            return (name, hint)
        self._defaults[name] = parameter.default
        return (name, hint | UnsetType if hint is not Any else Any, UNSET)

    def decode(self, body: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Positional and named arguments out of a JSON object. Raises `BadArguments`: which one, and why."""
        try:
            found = self._decoder.decode(body or b"{}")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._bad(str(error)) from None
        except RecursionError:
            raise self._bad("nested too deep") from None
        named = {name: value for name in self.names if (value := getattr(found, name)) is not UNSET}
        if not self._positional:
            return [], named
        return [named.pop(name) for name in self._positional if name in named], named

    def _bad(self, reason: str) -> BadArguments:
        hint = f"it takes {', '.join(map(self._shown, self.names)) or 'no arguments'}"
        if unknown := _UNKNOWN_FIELD.search(reason):
            close = nearest(unknown[1], self.names)
            hint = f"did you mean {close!r}? {hint}" if close else hint
        reason = reason.replace("Object contains unknown field", "there is no parameter")
        reason = reason.replace("Object missing required field", "missing argument")
        return BadArguments(f"{self._where}: {reason}", hint=hint)

    def _shown(self, name: str) -> str:
        return name if name in self._required else f"{name} (optional)"

    def schema(self) -> dict[str, Any]:
        """A JSON Schema of the object that `decode` takes."""
        schema = _schema(self._where, self._struct)
        schema.pop("title", None)
        for name, default in self._defaults.items():
            if (shown := _plain(default)) is not UNSET:
                schema["properties"][name].setdefault("default", shown)
        return schema


def hints_of(where: str, function: Callable[..., Any]) -> dict[str, Any]:
    """The resolved type hints. Raises `ConfigError` for one that names nothing."""
    try:
        return typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"{where}: a type hint cannot be resolved: {error}",
            hint="types of parameters belong to a module's top level",
        ) from None


def streams(function: Callable[..., Any], hint: Any) -> bool:
    """Whether calling `function` gives an iterator of items."""
    plain = inspect.unwrap(function)
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        return True
    return typing.get_origin(hint) in _STREAMS and typing.get_origin(hint) is not collections.abc.Iterable


def returns_schema(where: str, hint: Any, *, stream: bool) -> dict[str, Any]:
    """The JSON Schema of a result (of one item of a stream); empty without a hint."""
    if stream and typing.get_origin(hint) in _STREAMS:
        hint = typing.get_args(hint)[0]
    if hint is Any or hint is inspect.Signature.empty or (stream and hint in _STREAMS):
        return {}
    return _schema(where, hint)


def from_json(kind: type[Any], value: Any) -> Any:
    """msgspec's hook for types of others: pydantic models."""
    if hasattr(kind, "__pydantic_validator__"):
        try:
            return kind.model_validate(value)
        except ValueError as error:
            raise ValueError(_told_by_pydantic(error)) from None
    raise TypeError(f"values of type {kind.__qualname__} cannot be received")


def to_json(value: Any) -> Any:
    """msgspec's hook for values of others: pydantic models, and whatever can be iterated as a set or view is."""
    if hasattr(type(value), "__pydantic_validator__"):
        return value.model_dump(mode="json")
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if isinstance(value, collections.abc.Set | collections.abc.ValuesView):
        return list(value)
    raise TypeError(f"a value of type {type(value).__qualname__} cannot be sent as JSON")


def _told_by_pydantic(error: ValueError) -> str:
    details: Sequence[Any] = getattr(error, "errors", list)()
    told = [f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['msg']}" for each in details[:5]]
    return "; ".join(told) or str(error)


def _parameters(where: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    found = list(inspect.signature(function).parameters.values())
    for parameter in found:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(
                f"{where}: {parameter} cannot be called from elsewhere", hint="name each parameter, with its type"
            )
    return found


def _schema(where: str, kind: Any) -> dict[str, Any]:
    def generate() -> dict[str, Any]:
        (schema,), components = msgspec.json.schema_components(
            [kind], ref_template="#/$defs/{name}", schema_hook=_foreign_schema
        )
        return _inlined(schema, components)

    schema: dict[str, Any] = _supported(where, generate)
    return schema


def _inlined(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """A schema on its own: its top is no reference, all its definitions are at its top."""
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    definitions: dict[str, Any] = {}
    top: dict[str, Any] = _hoisted(components[name] if name else schema, definitions)
    definitions |= {key: _hoisted(value, definitions) for key, value in components.items()}
    if name and f'"#/$defs/{name}"' not in json.dumps([top, definitions]):
        del definitions[name]
    return top | {"$defs": definitions} if definitions else top


def _hoisted(schema: Any, into: dict[str, Any]) -> Any:
    """`schema` without definitions of its own (pydantic's have some): they go into `into`."""
    if isinstance(schema, list):
        return [_hoisted(each, into) for each in schema]
    if not isinstance(schema, dict):
        return schema
    for key, value in schema.get("$defs", {}).items():
        into[key] = _hoisted(value, into)
    return {key: _hoisted(value, into) for key, value in schema.items() if key != "$defs"}


def _foreign_schema(kind: type[Any]) -> dict[str, Any]:
    if hasattr(kind, "__pydantic_validator__"):
        schema: dict[str, Any] = kind.model_json_schema()
        return schema
    raise TypeError(f"{kind.__qualname__} has no JSON form")


def _supported(where: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except TypeError as error:
        raise ConfigError(
            f"{where}: a type hint cannot be carried as JSON: {error}",
            hint="use built-in types, dataclasses, msgspec.Struct or pydantic models",
        ) from None


def _plain(value: Any) -> Any:
    try:
        return msgspec.to_builtins(value)
    except (TypeError, msgspec.MsgspecError):
        return UNSET

"""Answers of a given form: JSON that fits a schema, checked, and asked for once more when it does not.

The engine is told the schema (`response_format`), which llama.cpp and others enforce with a grammar.
What comes is checked all the same, as not every engine does, and an answer may be cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmagentos.agents import arguments
from llmagentos.agents.choosing import unfenced
from llmagentos.core.errors import ConfigError

_SHOWN = 4000


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a type: a pydantic model, a msgspec Struct, a dataclass, a TypedDict, or a schema itself.

    Raises `ConfigError` for what has none.
    """
    if isinstance(kind, Mapping):
        return dict(kind)
    if hasattr(kind, "model_json_schema"):
        found: dict[str, Any] = kind.model_json_schema()
        return found
    try:
        made = msgspec.json.schema(kind)
    except TypeError as error:
        raise ConfigError(
            f"output={kind!r}: {error}", hint="a pydantic model, Struct, dataclass or TypedDict"
        ) from None
    definitions: dict[str, Any] = made.pop("$defs", {})
    if "$ref" in made:  # several engines want an object at the root
        made = dict(definitions[made["$ref"].removeprefix("#/$defs/")])
    return made | ({"$defs": definitions} if _refers(definitions, made) else {})


def _refers(definitions: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    return bool(definitions) and b'"$ref"' in msgspec.json.encode(schema)


def typed(kind: Any, value: Any) -> Any:
    """`value` as `kind`; as it is when that is a schema. Raises `ValueError` when it does not fit."""
    if isinstance(kind, Mapping):
        return value
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    return msgspec.convert(value, kind)


def instruction(schema: Mapping[str, Any]) -> str:
    """What the system prompt says of the form."""
    return f"Answer with one JSON value that fits this JSON Schema, and nothing else: {_json(schema)}"


def repair(wrong: str) -> str:
    """Asks for the answer again."""
    return f"That is not what was asked for: {wrong}. Write the whole answer again as JSON that fits the schema."


def read(text: str, schema: Mapping[str, Any], *, cut: bool = False) -> tuple[Any, str | None]:
    """The value in an answer, and what is wrong with it."""
    try:
        value = msgspec.json.decode(unfenced(text))
    except (msgspec.DecodeError, UnicodeError) as error:
        return None, "it was cut off: write less" if cut else f"it is no JSON ({error})"
    wrong = arguments.unfit(value, schema)
    return value, f"it does not fit the schema: {wrong}" if wrong else None


def words(value: Any) -> str:
    """The texts and numbers of a value, without the names of its fields: what it says, for a check of facts."""
    return "\n".join(_leaves(value))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def shown(text: str) -> str:
    """A refused answer as the model reads it again."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " ... (cut)"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

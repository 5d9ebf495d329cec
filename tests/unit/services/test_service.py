"""What type hints become: conversion, refusals, schemas."""

from __future__ import annotations

import datetime
import enum
import functools
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.core.errors import ConfigError
from llmagentos.services.errors import BadArguments
from llmagentos.services.service import Method, Service, idempotent, methods_of, spec_of


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Tree:
    value: int
    children: list[Tree]


class Line(msgspec.Struct):
    start: Point
    end: Point


class Model(pydantic.BaseModel):
    name: str
    size: int = pydantic.Field(gt=0)


class Outer(pydantic.BaseModel):
    model: Model


class Options(TypedDict, total=False):
    depth: int


def method(function: Any) -> Method:
    return Method("s", function.__name__, function)


def bind(offered: Method, body: bytes) -> Any:
    positional, named = offered.arguments(body)
    return offered.function(*positional, **named)


def call(function: Any, **arguments: Any) -> Any:
    offered = method(function)
    return json.loads(offered.encode(bind(offered, msgspec.json.encode(arguments))))


def refused(function: Any, body: bytes) -> BadArguments:
    with pytest.raises(BadArguments) as told:
        bind(method(function), body)
    return told.value


def many(
    point: Point,
    line: Line,
    model: Model,
    models: list[Model],
    when: datetime.datetime,
    key: uuid.UUID,
    price: Decimal,
    colour: Colour,
    names: set[str],
    pair: tuple[int, str],
    options: Options,
    mode: Literal["a", "b"],
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None,
    anything=None,
) -> list[str]:
    values = (point, line, model, models, when, key, price, colour, names, pair, options, mode, limit, anything)
    return [type(value).__name__ for value in values]


GOOD = {
    "point": {"x": 1},
    "line": {"start": {"x": 1}, "end": {"x": 2, "y": 3}},
    "model": {"name": "m", "size": 1},
    "models": [{"name": "m", "size": 1}],
    "when": "2026-01-31T10:00:00Z",
    "key": "6b1f5cde-9d3b-4f6a-8a52-8e2f1c6e8f11",
    "price": "1.20",
    "colour": "red",
    "names": ["a", "a"],
    "pair": [1, "x"],
    "options": {"depth": 1},
    "mode": "a",
}


def test_values_arrive_as_the_hints_say() -> None:
    assert call(many, **GOOD) == (
        [
            "Point",
            "Line",
            "Model",
            "list",
            "datetime",
            "UUID",
            "Decimal",
            "Colour",
            "set",
            "tuple",
            "dict",
            "str",
            "NoneType",
            "NoneType",
        ]
    )
    assert call(many, **GOOD, limit=3, anything={"a": []})[-2:] == ["int", "dict"]


@pytest.mark.parametrize(
    ("change", "where", "why"),
    [
        ({"point": {"x": "1"}}, "$.point.x", "Expected `int`, got `str`"),
        ({"point": {}}, "$.point", "missing argument `x`"),
        ({"line": {"start": {"x": 1}, "end": 3}}, "$.line.end", "Expected `object`, got `int`"),
        ({"model": {"name": "m", "size": 0}}, "$.model", "size: Input should be greater than 0"),
        ({"models": [{"name": "m", "size": 1}, {"size": 1}]}, "$.models[1]", "name: Field required"),
        ({"colour": "blue"}, "$.colour", "Invalid enum value 'blue'"),
        ({"mode": "c"}, "$.mode", "Invalid enum value 'c'"),
        ({"limit": 0}, "$.limit", ">= 1"),
        ({"when": "yesterday"}, "$.when", "Invalid RFC3339"),
        ({"pair": [1]}, "$.pair", "length 2"),
    ],
)
def test_what_does_not_fit_is_told(change: dict[str, Any], where: str, why: str) -> None:
    told = refused(many, msgspec.json.encode(GOOD | change)).message
    assert told.startswith("s.many: ")
    assert where in told
    assert why in told


def test_names_that_do_not_fit() -> None:
    def greet(name: str, loud: bool = False) -> str:
        return name

    unknown = refused(greet, b'{"name": "a", "lowd": true}')
    assert unknown.message == "s.greet: there is no parameter `lowd`"
    assert unknown.hint == "did you mean 'loud'? it takes name, loud (optional)"
    assert refused(greet, b"{}").message == "s.greet: missing argument `name`"
    for body in (b"[]", b"3", b'{"name": ', b"\xff\xfe", b'{"name": "\xff"}', b"nonsense", b"[" * 100_000):
        assert refused(greet, body).message.startswith("s.greet: ")


@given(st.binary(max_size=200))
def test_no_bytes_get_past(body: bytes) -> None:
    def take(point: Point) -> None: ...

    try:
        bind(method(take), body)
    except BadArguments as told:
        assert told.hint == "it takes point"
    else:
        assert set(msgspec.json.decode(body)) == {"point"}


def test_no_arguments_and_an_empty_body() -> None:
    assert bind(method(lambda: 1), b"") == 1


def test_positional_only_and_keyword_only() -> None:
    def f(a: int, /, b: int, *, c: int = 3) -> list[int]:
        return [a, b, c]

    assert call(f, a=1, b=2) == [1, 2, 3]


def test_results() -> None:
    def give(what: str) -> Any:
        return {
            "model": Model(name="m", size=1),
            "nested": [Line(Point(1), Point(2))],
            "set": {1},
            "view": {"a": 1}.values(),
            "time": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        }[what]

    assert call(give, what="model") == {"name": "m", "size": 1}
    assert call(give, what="nested") == [{"start": {"x": 1, "y": 0}, "end": {"x": 2, "y": 0}}]
    assert call(give, what="set") == call(give, what="view") == [1]
    assert call(give, what="time") == "2026-01-01T00:00:00Z"
    with pytest.raises(TypeError, match="object cannot be sent as JSON"):
        method(give).encode(object())


def test_schemas() -> None:
    schema = method(many).spec.parameters
    assert set(schema["properties"]) == {*GOOD, "limit", "anything"}
    assert set(schema["required"]) == set(GOOD)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["point"] == {"$ref": "#/$defs/Point"}
    assert schema["$defs"]["Point"]["properties"]["x"] == {"type": "integer"}
    assert schema["properties"]["limit"]["default"] is None
    assert method(many).spec.returns == {"type": "array", "items": {"type": "string"}}


def test_a_recursive_type() -> None:
    def grow(tree: Tree) -> Tree:
        return tree

    tree = {"value": 1, "children": [{"value": 2, "children": []}]}
    assert call(grow, tree=tree) == tree
    schema = method(grow).spec.returns
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert "Tree" in schema["$defs"]


def test_pydantic_models_within_models() -> None:
    def take(outer: Outer) -> list[Outer]:
        return [outer]

    for schema in (method(take).spec.parameters, method(take).spec.returns):
        assert set(schema["$defs"]) == {"Model"}
        assert '"$defs"' not in json.dumps({key: value for key, value in schema.items() if key != "$defs"})
    assert call(take, outer={"model": {"name": "m", "size": 1}}) == [{"model": {"name": "m", "size": 1}}]


def test_what_streams() -> None:
    def plain(n: int) -> Iterator[Point]:
        yield Point(n)

    async def unhinted(n: int):
        yield n

    def handed_on() -> AsyncIterator[int]:
        return unhinted(1)

    def listing() -> list[int]:
        return []

    assert [method(f).streams for f in (plain, unhinted, handed_on, listing)] == [True, True, True, False]
    assert method(plain).spec.returns["properties"]["x"] == {"type": "integer"}
    assert method(unhinted).spec.returns == {}


class Greeter(Service):
    """Greets."""

    limit = 3

    @idempotent
    def hello(self, name: str) -> str:
        """Say it."""
        return name + self._mark()

    async def ahello(self) -> str:
        return "a"

    @staticmethod
    def fixed(n: int) -> int:
        return n

    @property
    def secret(self) -> str:
        raise AssertionError("a property is not touched")

    def _mark(self) -> str:
        return "!"


def test_a_service_offers_its_public_methods() -> None:
    service = Greeter()
    methods = methods_of("greeter", service)
    assert set(methods) == {"hello", "ahello", "fixed"}
    spec = spec_of("greeter", service, methods)
    assert spec.doc == "Greets."
    assert {m.name: (m.doc, m.idempotent) for m in spec.methods} == {
        "hello": ("Say it.", True),
        "ahello": ("", False),
        "fixed": ("", False),
    }
    assert bind(methods["hello"], b'{"name": "a"}') == "a!"


def test_wrapped_methods_keep_their_signature() -> None:
    def twice(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs) * 2

        return wrapper

    @twice
    def n(x: int) -> int:
        return x

    assert call(n, x=2) == 4
    refused(n, b'{"x": "2"}')


def test_what_cannot_be_offered_is_told_at_once() -> None:
    class Opaque: ...

    def star(*names: str) -> None: ...

    def stars(**names: str) -> None: ...

    def opaque(x: set[Opaque]) -> None: ...

    def gives_opaque() -> Opaque:
        return Opaque()

    for function, why in ((star, "names"), (stars, "names"), (opaque, "Opaque"), (gives_opaque, "Opaque")):
        with pytest.raises(ConfigError, match=why):
            method(function)

    def unresolved(x: Missing) -> None: ...  # noqa: F821

    with pytest.raises(ConfigError, match="type hint cannot be resolved"):
        method(unresolved)
    with pytest.raises(ConfigError, match="no method"):
        methods_of("empty", Service())

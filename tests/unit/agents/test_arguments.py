"""Arguments against schemas: what is said of a fault, and that no schema breaks the check."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.agents.arguments import misfit

PAY = {
    "type": "object",
    "properties": {
        "amount": {"type": "number", "exclusiveMinimum": 0},
        "to": {"$ref": "#/$defs/Person"},
        "kind": {"enum": ["card", "cash"]},
        "notes": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
        "when": {"anyOf": [{"type": "null"}, {"type": "integer"}]},
    },
    "required": ["amount"],
    "additionalProperties": False,
    "$defs": {"Person": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"amount": 5, "to": {"name": "Ada"}, "kind": "card", "notes": ["ab"], "when": None}, None),
        ({}, "amount is missing"),
        ({"amount": "5"}, 'amount has to be number, not "5"'),
        ({"amount": True}, "amount has to be number, not true"),
        ({"amount": 0}, "amount has to be more than 0, not 0"),
        ({"amount": 1, "amuont": 2}, "there is no amuont; did you mean 'amount'?"),
        ({"amount": 1, "to": {}}, "to.name is missing"),
        ({"amount": 1, "kind": "gold"}, 'kind has to be one of "card", "cash", not "gold"'),
        ({"amount": 1, "notes": ["toolong"]}, "notes[0] has 7 characters, more than 5"),
        ({"amount": 1, "notes": ["a", "b", "c"]}, "notes has 3 items, more than 2"),
        ({"amount": 1, "when": 1.5}, "when has to be null, not 1.5 or when has to be integer, not 1.5"),
        ({"amount": 1, "when": 2.0}, None),
    ],
)
def test_what_is_said(arguments: dict[str, Any], said: str | None) -> None:
    assert misfit(arguments, PAY) == said


def _values() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 2.0]) | st.text("ab", max_size=3)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    )


def _schemas() -> st.SearchStrategy[Any]:
    kinds = st.sampled_from(["string", "integer", "number", "object", "array", "boolean", "null"])
    leaves = st.one_of(
        st.just({}),
        st.booleans(),
        st.builds(lambda kind: {"type": kind}, kinds),
        st.builds(lambda choices: {"enum": choices}, st.lists(_values(), min_size=1, max_size=2)),
        st.builds(lambda least: {"minimum": least}, st.integers(-2, 2)),
        st.builds(lambda most: {"maxLength": most}, st.integers(0, 2)),
        st.builds(lambda most: {"maxItems": most}, st.integers(0, 2)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda part: {"items": part}, inner),
            st.builds(
                lambda named, other: {"properties": named, "additionalProperties": other},
                st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
                inner,
            ),
            st.builds(lambda names: {"required": names}, st.lists(st.text("ab", max_size=1), max_size=2, unique=True)),
            st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=2)),
            st.builds(lambda parts: {"allOf": parts}, st.lists(inner, min_size=1, max_size=2)),
        ),
        max_leaves=6,
    )


@given(st.dictionaries(st.text("ab", max_size=2), _values(), max_size=3), _schemas())
def test_as_the_reference_does(arguments: dict[str, Any], schema: Any) -> None:
    whole = {"allOf": [schema]}
    assert (misfit(arguments, whole) is None) == jsonschema.Draft202012Validator(whole).is_valid(arguments)


@given(st.dictionaries(st.text(max_size=3), _values(), max_size=3), _values())
def test_whatever_stands_for_a_schema(arguments: dict[str, Any], schema: Any) -> None:
    misfit(arguments, {"allOf": [schema], "properties": schema, "anyOf": schema, "required": schema, "type": schema})


def test_a_schema_whose_parts_mean_each_other_ends() -> None:
    endless = {"anyOf": [{"$ref": "#"}, {"$ref": "#"}], "allOf": [{"$ref": "#"}, {"type": "string"}]}
    misfit({"a": 1}, endless)

"""Surveys: what may be asked, what answers fit, and that nothing else ever gets through."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.templates import BadParameter, Parameter
from llmagentos.fleet.survey import answers, check, fit, from_text

RELEASE = Parameter("release", regex=r"v\d+\.\d+")
COUNT = Parameter("count", "int", min=1, max=5, default=2)
RATIO = Parameter("ratio", "float", min=0.0, max=1.0, required=False)
FORCE = Parameter("force", "bool", default=False)
COLOUR = Parameter("colour", "choice", choices=["blue", "green"])
ZONES = Parameter("zones", "multichoice", choices=["a", "b", "c"], min=1, default=["a"])
TOKEN = Parameter("token", "secret", min=4)
ALL = [RELEASE, COUNT, RATIO, FORCE, COLOUR, ZONES, TOKEN]
GOOD = {"release": "v1.2", "colour": "blue", "token": "hunter2"}


def test_defaults_fill_what_is_left_out():
    check(ALL)
    assert answers(ALL, GOOD) == GOOD | {"count": 2, "force": False, "zones": ["a"]}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("release", "1.2", "has to match"),
        ("release", 12, "has to be a text"),
        ("count", 6, "at most 5"),
        ("count", 0, "at least 1"),
        ("count", 2.5, "a whole number"),
        ("count", True, "a number"),
        ("count", "3", "a number"),
        ("ratio", float("nan"), "a number"),
        ("force", "yes", "true or false"),
        ("colour", "red", "one of blue, green"),
        ("zones", ["a", "d"], "one of a, b, c"),
        ("zones", ["a", "a"], "twice"),
        ("zones", [], "at least 1 choices"),
        ("zones", "a", "a list of choices"),
        ("token", "abc", "at least 4 characters"),
    ],
)
def test_a_bad_answer_names_its_parameter(name, value, said):
    with pytest.raises(BadParameter, match=said) as caught:
        answers(ALL, GOOD | {name: value})
    assert caught.value.details["parameter"] == name
    assert caught.value.status == 400


def test_a_regex_that_backtracks_without_end_is_given_up():
    with pytest.raises(BadParameter, match="cannot be compared with"):
        fit(Parameter("name", regex=r"(a+)+b"), "a" * 60)
    assert fit(Parameter("name", regex=r"(a+)+b"), "aab") == "aab"


@pytest.mark.parametrize("parameter", [COUNT, RATIO])
def test_a_number_of_very_many_digits_is_refused(parameter):
    with pytest.raises(BadParameter, match="too many digits"):
        fit(parameter, 10**400)
    if parameter is COUNT:
        assert from_text(parameter, ["9" * 400]) == int("9" * 400)


def test_what_is_missing_or_unknown_is_named():
    with pytest.raises(BadParameter, match="'release' is required"):
        answers(ALL, {name: value for name, value in GOOD.items() if name != "release"})
    with pytest.raises(BadParameter, match="no parameter 'relase'") as caught:
        answers(ALL, GOOD | {"relase": "v1.2"})
    assert caught.value.hint == "did you mean 'release'?"


def test_a_secret_is_never_shown():
    with pytest.raises(BadParameter) as caught:
        fit(Parameter("token", "secret", regex="[0-9]+"), "hunter2")
    assert "hunter2" not in caught.value.message
    with pytest.raises(BadParameter) as caught:
        fit(TOKEN, ["hunter2"])
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    "bad",
    [
        [Parameter("a"), Parameter("a")],
        [Parameter("a", "choice")],
        [Parameter("a", choices=["x"])],
        [Parameter("a", "int", min=3, max=1)],
        [Parameter("a", regex="(")],
        [Parameter("a", "int", regex="1")],
        [Parameter("a", "int", default="x")],
        [Parameter("a", "secret", default="hunter2")],
    ],
)
def test_a_survey_that_cannot_be_answered_is_refused(bad):
    with pytest.raises(BadParameter, match="'a'"):
        check(bad)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=2)),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([each.name for each in ALL]), VALUES))
def test_only_answers_that_fit_get_through(given):
    try:
        found = answers(ALL, given)
    except BadParameter as error:
        assert error.details["parameter"]
        return
    assert re.fullmatch(RELEASE.regex, found["release"])
    assert type(found["count"]) is int and 1 <= found["count"] <= 5
    assert type(found["force"]) is bool
    assert found["colour"] in COLOUR.choices
    assert set(found["zones"]) <= set(ZONES.choices) and found["zones"]
    assert isinstance(found["token"], str)


@given(st.sampled_from(ALL), st.lists(st.text(max_size=30), max_size=3))
def test_any_text_of_a_form_is_a_value_or_refused(parameter, texts):
    try:
        value = from_text(parameter, texts)
        if value is not None:
            fit(parameter, value)
    except BadParameter as error:
        assert error.details["parameter"] == parameter.name


def test_texts_become_values():
    assert from_text(COUNT, ["3"]) == 3
    assert from_text(COUNT, [""]) is None
    assert from_text(FORCE, ["yes"]) is True
    assert from_text(FORCE, []) is False
    assert from_text(ZONES, ["a,b", "c"]) == ["a", "b", "c"]
    assert from_text(RATIO, ["0.5"]) == 0.5

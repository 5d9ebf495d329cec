"""The check of answers against records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.agents.support import numbers, unsupported, used

KETTLE = {"name": "Blue Enamel Kettle", "price": "39.90 EUR", "text": "1.7 litre kettle for gas and induction hobs."}
KNIFE = {"name": "Chef's Knife", "price": "79.00 EUR", "text": "20 cm blade of forged carbon steel."}
ASKED = "How much is the blue kettle?"


@pytest.mark.parametrize(
    "answer",
    [
        "The blue enamel kettle is priced at 39.90 EUR.",
        "It costs 39.9 euros.",
        "Yes.",
        "The kettle works with gas and induction.",
        "蓝色水壶的价格是39.90。",
    ],
)
def test_what_stands_on_the_records(answer: str) -> None:
    assert unsupported(answer, [KETTLE], ASKED) is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("It costs 49.90 EUR.", "49.9"),
        ("It costs 390 EUR.", "390"),
        ("It comes in a variety of colours, including white, green and purple.", "words"),
    ],
)
def test_what_was_invented(answer: str, why: str) -> None:
    found = unsupported(answer, [KETTLE], ASKED)
    assert found is not None
    assert why in found


def test_invented_chinese() -> None:
    record = {"名称": "蓝色珐琅水壶", "价格": "39.90 EUR"}
    assert unsupported("蓝色珐琅水壶最低价值1.7万元。", [record], "蓝色珐琅水壶多少钱？") is not None
    assert unsupported("羊毛毯可以机洗吗", [{"名称": "羊毛毯", "说明": "可机洗"}], "羊毛毯可以机洗吗？") is not None
    assert unsupported("容量是 1.7 万元", [{"说明": "1.7 升水壶"}], "多大？") is not None
    assert unsupported("容量是1.7升", [{"说明": "1.7 升水壶"}], "多大？") is None
    english = "The record mentions that the product is 130 厘米, which is available for customers."
    assert unsupported(english, [{"说明": "130 厘米羊毛毯"}], "多大？") is not None
    assert unsupported("被烧烧烧烧，不进去了吧。", [record], "多少钱？") is not None
    assert unsupported("蓝色珐琅水壶的价格是 39.90 EUR。", [record], "蓝色珐琅水壶多少钱？") is None


def test_the_record_that_was_used() -> None:
    assert used("It costs 79.00 EUR.", [KETTLE, KNIFE], "How much is the knife?") == [KNIFE]
    assert used("39.90 and 79.00 EUR.", [KETTLE, KNIFE], "Prices?") == [KETTLE, KNIFE]
    assert used("Yes.", [KETTLE, KNIFE], "Do you sell these?") == [KETTLE, KNIFE]
    assert used("x", [], "y") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,200.50 and 1200.5", {"1200.5"}),
        ("39.90", {"39.9"}),
        ("007", {"7"}),
        ("3,5", {"3.5"}),
        ("none", set()),
        ("0.0", {"0"}),
    ],
)
def test_numbers_have_one_form(text: str, found: set[str]) -> None:
    assert numbers(text) == found


@given(st.text(max_size=100))
def test_a_copy_of_the_records_is_always_supported(record: str) -> None:
    assert unsupported(record, [record], "what is it") is None


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=4), st.text(max_size=50)
)
def test_the_used_records_are_some_of_the_records(records: list[dict[str, str]], answer: str) -> None:
    found = used(answer, records, "?")
    assert all(record in records for record in found)
    assert bool(found) == bool(records)

"""Cordon, drain, uncordon: every step from every state."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.nodes import Availability
from llmagentos.core.errors import Conflict
from llmagentos.fleet.availability import TABLE, Change, step

STATES = get_args(Availability)
CHANGES = get_args(Change)


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(CHANGES)
    for change in ("cordon", "uncordon", "drain"):
        assert set(TABLE[change]) == set(STATES), "people may do each of them at any time"


def test_only_what_is_drained_is_emptied() -> None:
    for state in ("open", "cordoned"):
        with pytest.raises(Conflict, match=state):
            step(state, "emptied")


@given(st.lists(st.sampled_from(["cordon", "uncordon", "drain", "emptied"]), max_size=20))
def test_jobs_are_taken_exactly_when_the_last_word_was_uncordon(changes: list[Change]) -> None:
    state: Availability = "open"
    word = "uncordon"
    for change in changes:
        if change == "emptied" and state not in ("draining", "drained"):
            continue
        state = step(state, change)
        word = change if change != "emptied" else word
    assert (state == "open") == (word == "uncordon")
    assert state in {"uncordon": {"open"}, "cordon": {"cordoned"}, "drain": {"draining", "drained"}}[word]

"""The table of a job's states on a node, and what the nodes make of the whole."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.jobs import HostEnd, HostState
from llmagentos.fleet.job_states import ENDS, TRANSITIONS, WORKING, WrongState, exit_code, overall, step

STATES = list(get_args(HostState))
CHANGES = ["release", "hold", "claim", "cancel", "expire", "retry", "remove", *get_args(HostEnd)]


def test_every_state_is_in_the_table_or_an_end():
    assert {state for state, _ in TRANSITIONS} == set(STATES) - ENDS
    assert set(TRANSITIONS.values()) == set(STATES)
    assert {change for _, change in TRANSITIONS} == set(CHANGES)


@given(st.lists(st.sampled_from(CHANGES), max_size=12))
def test_an_end_is_final_and_only_what_was_claimed_ends(changes):
    state, claimed = "held", False
    for change in changes:
        before = state
        try:
            state = step(state, change)
        except WrongState:
            continue
        assert before not in ENDS
        claimed = (claimed or change == "claim") and state not in ("held", "queued")
        assert claimed or state in ("held", "queued", "cancelled") or change == "expire"
    assert (state in WORKING) <= claimed


@pytest.mark.parametrize(
    ("states", "state", "code"),
    [
        (["held", "held"], "waiting", None),
        (["held", "queued"], "queued", None),
        (["held", "succeeded"], "running", None),
        (["queued", "queued"], "queued", None),
        (["queued", "running"], "running", None),
        (["succeeded", "queued"], "running", None),
        (["failed", "cancelling"], "running", None),
        (["succeeded", "succeeded"], "succeeded", 0),
        (["succeeded", "failed"], "failed", 2),
        (["interrupted"], "failed", 2),
        (["failed", "unreachable"], "failed", 4),
        (["succeeded", "cancelled"], "cancelled", 1),
        (["failed", "cancelled"], "failed", 2),
    ],
)
def test_the_whole_and_its_exit_code(states, state, code):
    assert (overall(states), exit_code(states)) == (state, code)


@given(st.lists(st.sampled_from(STATES), min_size=1, max_size=8))
def test_an_exit_code_comes_with_the_end(states):
    ended = overall(states) in ("succeeded", "failed", "cancelled")
    assert (exit_code(states) is not None) == ended == (set(states) <= ENDS)

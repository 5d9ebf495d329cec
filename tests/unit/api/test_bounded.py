"""What a task returned, cut to size."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.api.bounded import MAX_DIFF_BYTES, MAX_RESULT_BYTES, bounded, difference, fit
from llmagentos.api.jobs import MAX_EVENT_BYTES, Difference, LogLine, PlayStarted, TaskResult

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=100),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner, max_size=8),
    max_leaves=15,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=8), st.sampled_from([64, 500, 5000]))
def test_the_result_fits_and_is_json(result, most):
    cut = bounded(result, most)
    assert len(msgspec.json.encode(cut)) <= most
    assert msgspec.json.decode(msgspec.json.encode(cut)) == cut


def test_what_fits_is_left_alone():
    result = {"stdout": "hello", "rc": 0, "lines": [1, 2.5, None, True], "nested": {"a": {}}}
    assert bounded(result) == result


def test_cuts_are_marked_and_keep_both_ends():
    text = bounded({"stdout": "begin" + "x" * 10**6 + "end"})["stdout"]
    assert text.startswith("begin") and text.endswith("end") and "characters cut]" in text
    assert "entries cut]" in bounded({"list": list(range(10**5))}, 1000)["list"][-1]


def test_bytes_that_were_no_text_and_numbers_that_are_no_json():
    cut = bounded({"stdout": b"a\xffb".decode("utf-8", "surrogateescape"), "big": 10**30, "nan": float("nan")})
    assert cut == {"stdout": "a\ufffdb", "big": str(10**30), "nan": "nan"}


def test_events_fit():
    big = "x" * (4 * MAX_EVENT_BYTES)
    for event in (
        TaskResult(seq=1, at=0.0, host="a", task=big, status="ok", item=[big] * 3, result={"stdout": big}),
        TaskResult(seq=1, at=0.0, host="a", task="t", status="ok", diff=[Difference(big, big)] * 100),
        LogLine(seq=1, at=0.0, text=big),
        PlayStarted(seq=1, at=0.0, name=big),
    ):
        shortened = fit(event)
        assert len(msgspec.json.encode(shortened)) <= MAX_EVENT_BYTES
        assert shortened.seq == 1
    small = LogLine(seq=1, at=0.0, text="x")
    assert fit(small) is small
    assert len(difference(big, "").before) < MAX_DIFF_BYTES + 100
    assert MAX_RESULT_BYTES < MAX_EVENT_BYTES

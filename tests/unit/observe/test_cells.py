"""Down-sampling against what the raw values say."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.telemetry import Point, Sample
from llmagentos.observe import cells

VALUES = st.floats(-1e6, 1e6)
TIMES = st.lists(st.integers(0, 4000), min_size=1, max_size=60, unique=True).map(sorted)


@given(TIMES, st.data(), st.integers(0, 60))
def test_cells_hold_what_the_samples_say_however_they_came(times: list[int], data: st.DataObject, cut: int) -> None:
    samples = [Sample(float(at), {"g": data.draw(VALUES)}) for at in times]
    whole = cells.gather(samples, 300)["g"]
    parts = cells.merged(cells.gather(samples[:cut], 300), cells.gather(samples[cut:], 300))["g"]
    for found in (whole, parts):
        assert [cell.at for cell in found] == sorted({at // 300 * 300 for at in times})
        for cell in found:
            inside = [sample.values["g"] for sample in samples if cell.at <= sample.at < cell.at + 300]
            assert (cell.least, cell.most, cell.count) == (min(inside), max(inside), len(inside))
            assert cell.value == pytest.approx(fmean(inside), rel=1e-6, abs=1e-6)


@given(TIMES, st.data())
def test_a_counters_growth_adds_up_through_restarts(times: list[int], data: st.DataObject) -> None:
    grown, shown, samples = 0.0, 0.0, []
    for number, at in enumerate(times):
        more = data.draw(st.integers(0, 100))
        shown = more if number and data.draw(st.booleans()) and more < shown else shown + more
        grown += more if number else 0
        samples.append(Sample(float(at), {"x_total": float(shown)}))
    found = cells.points("x_total", cells.gather(samples, 0)["x_total"], since=0, until=5000, most=1000)
    seconds = [after - before for before, after in pairwise(times)]
    assert sum(point.value * took for point, took in zip(found, seconds, strict=True)) == pytest.approx(grown)


@given(TIMES, st.data(), st.integers(1, 20))
def test_points_are_few_inside_and_keep_the_extremes(times: list[int], data: st.DataObject, most: int) -> None:
    samples = [Sample(float(at), {"g": data.draw(VALUES)}) for at in times]
    found = cells.points("g", cells.gather(samples, 0)["g"], since=0, until=4001, most=most)
    assert 0 < len(found) <= most
    assert [point.at for point in found] == sorted({point.at for point in found})
    assert all(0 <= point.at <= 4001 for point in found)
    values = [sample.values["g"] for sample in samples]
    assert (min(p.least for p in found), max(p.most for p in found)) == (min(values), max(values))


def test_what_is_no_number_is_left_out() -> None:
    found = cells.gather([Sample(1.0, {"a": math.nan, "b": math.inf, "c": 1.0})], 0)
    assert cells.points("c", found["c"], since=0, until=2, most=5) == [Point(1.0, 1.0, 1.0, 1.0)]
    assert set(found) == {"c"}

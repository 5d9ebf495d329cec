"""Down-sampling: values gathered into cells of a step, cells thinned into points. Pure.

A gauge's cell holds mean, least and greatest value; a counter's the last value, from which its growth in a
second follows between one cell and the next. A counter that went back was started anew: it grew by what it
shows now (as Prometheus' `rate` takes it).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from llmagentos.api.telemetry import Point, Sample, kind_of


@dataclass(frozen=True, slots=True)
class Cell:
    """What a series did from `at` on for a step."""

    at: float
    value: float
    least: float
    most: float
    count: float


Columns = dict[str, list[Cell]]
"""Cells by series, in order of time."""


def gather(samples: Iterable[Sample], step: float) -> Columns:
    """The cells of `samples`, which come in order of time; `step` 0 makes a cell of each."""
    found: Columns = {}
    for sample in samples:
        at = sample.at if step == 0 else math.floor(sample.at / step) * step
        for name, value in sample.values.items():
            if not math.isfinite(value):
                continue
            cells = found.setdefault(name, [])
            new = Cell(at, value, value, value, 1)
            if cells and cells[-1].at == at:
                cells[-1] = joined(cells[-1], new, counter=kind_of(name) == "counter")
            else:
                cells.append(new)
    return found


def joined(one: Cell, two: Cell, *, counter: bool) -> Cell:
    """Both together; `two` came later."""
    count = one.count + two.count
    value = two.value if counter else one.value + (two.value - one.value) * (two.count / count)
    return Cell(one.at, value, min(one.least, two.least), max(one.most, two.most), count)


def read(stored: Mapping[str, Iterable[Iterable[float]]]) -> Columns:
    """Cells as they were stored."""
    return {name: [Cell(*cell) for cell in cells] for name, cells in stored.items()}


def merged(old: Columns, new: Columns) -> Columns:
    """`old` cells with `new` ones added to them."""
    found = dict(old)
    for name, cells in new.items():
        at = {cell.at: cell for cell in found.get(name, [])}
        for cell in cells:
            known = at.get(cell.at)
            at[cell.at] = cell if known is None else joined(known, cell, counter=kind_of(name) == "counter")
        found[name] = [at[begin] for begin in sorted(at)]
    return found


def points(name: str, cells: list[Cell], *, since: float, until: float, most: int) -> list[Point]:
    """At most `most` points of the series between `since` and `until`; a counter's as growth in a second."""
    if kind_of(name) == "counter":
        cells = list(_growth(cells))
    inside = [cell for cell in cells if since <= cell.at <= until]
    if len(inside) > most:
        width = (until - since) / most
        thin: list[Cell] = []
        for cell in inside:
            begin = since + math.floor((cell.at - since) / width) * width
            if thin and thin[-1].at == begin:
                thin[-1] = joined(thin[-1], replace(cell, at=begin), counter=False)
            else:
                thin.append(replace(cell, at=begin))
        inside = thin
    return [Point(cell.at, cell.value, cell.least, cell.most) for cell in inside[:most]]


def _growth(cells: list[Cell]) -> Iterable[Cell]:
    for before, after in pairwise(cells):
        seconds = after.at - before.at
        grown = after.value - before.value if after.value >= before.value else after.value
        rate = grown / seconds
        yield Cell(after.at, rate, rate, rate, 1)

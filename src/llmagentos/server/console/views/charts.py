"""Charts of what a node measured: lines as SVG paths, drawn by the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from llmagentos.api.telemetry import Point, Series
from llmagentos.server.console import words
from llmagentos.server.console.words import Translate

RANGES = {"1h": 3600.0, "6h": 6 * 3600.0, "24h": 86_400.0, "7d": 7 * 86_400.0, "30d": 30 * 86_400.0}
POINTS = 180
WIDTH, HEIGHT = 600.0, 120.0
TICKS = 4
"""Spaces between times on the axis."""
_DAY_S = 86_400.0
MAX_LINES = 4
GAP = 4.0
"""A line is broken where points are missing for so many times their usual distance."""

Line = tuple[str, list[Point]]


@dataclass(frozen=True, slots=True)
class _Chart:
    title: str
    lines: list[Line]
    show: Callable[[float], str]
    top: float | None = None
    """Of the axis; None for what the values need."""


def page(series: Sequence[Series], since: float, until: float, chosen: str, t: Translate) -> dict[str, Any]:
    """All charts for which something was measured, and the ranges to choose from."""
    by_name = {each.name: each.points for each in series}
    charts = [_Chart(t("CPU"), _cpu(by_name), _percent, 1.0), _Chart(t("Memory"), _memory(by_name, t), _percent, 1.0)]
    charts.append(_Chart(t("File systems"), _filesystems(by_name), _percent, 1.0))
    charts.append(_Chart(t("Load"), [("1 min", by_name.get("node_load1", []))], lambda value: f"{value:.2f}"))
    both = (("receive", "↓"), ("transmit", "↑"))
    charts.append(_Chart(t("Network"), _rates(by_name, "node_network_{}_bytes_total", both), _speed))
    both = (("read", "↓"), ("written", "↑"))
    charts.append(_Chart(t("Disks"), _rates(by_name, "node_disk_{}_bytes_total", both), _speed))
    charts.append(_Chart("GPU", _labelled(by_name, "node_gpu_utilization_ratio", "gpu"), _percent, 1.0))
    drawn = [_drawn(chart, since, until) for chart in charts if any(points for _, points in chart.lines)]
    ticks = [since + (until - since) * step / TICKS for step in range(TICKS + 1)]
    show = "minute" if until - since <= _DAY_S else "date"
    return {"charts": drawn, "ranges": list(RANGES), "range": chosen, "ticks": ticks, "tick": show}


def _cpu(by_name: dict[str, list[Point]]) -> list[Line]:
    idle = by_name.get('node_cpu_seconds_total{cpu="all",mode="idle"}', [])
    return [("", [_turned(point) for point in idle])]


def _memory(by_name: dict[str, list[Point]], t: Translate) -> list[Line]:
    memory = _share(by_name, "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes")
    swap = _share(by_name, "node_memory_SwapFree_bytes", "node_memory_SwapTotal_bytes")
    return [("", memory), (t("Swap"), swap)]


def _filesystems(by_name: dict[str, list[Point]]) -> list[Line]:
    found: list[Line] = []
    for name in sorted(by_name):
        if name.startswith("node_filesystem_avail_bytes{"):
            size = name.replace("_avail_", "_size_")
            found.append((_label(name, "mountpoint"), _share(by_name, name, size)))
    return sorted(found, key=lambda line: len(line[0]))[:MAX_LINES]


def _share(by_name: dict[str, list[Point]], free: str, total: str) -> list[Point]:
    """Which part of `total` is not free."""
    whole = {point.at: point.value for point in by_name.get(total, []) if point.value}
    return [
        _turned(Point(point.at, point.value / all_of, point.least / all_of, point.most / all_of))
        for point in by_name.get(free, [])
        if (all_of := whole.get(point.at))
    ]


def _rates(by_name: dict[str, list[Point]], name: str, words_of: Iterable[tuple[str, str]]) -> list[Line]:
    """Both directions of the device with the most of it."""
    pairs = list(words_of)
    totals: dict[str, float] = {}
    for word, _ in pairs:
        for device, points in _labelled(by_name, name.format(word), "device"):
            totals[device] = totals.get(device, 0.0) + sum(point.value for point in points)
    if not totals:
        return []
    device = max(sorted(totals), key=lambda each: totals[each])
    lines = []
    for word, arrow in pairs:
        found = dict(_labelled(by_name, name.format(word), "device"))
        lines.append((f"{device} {arrow}", found.get(device, [])))
    return lines


def _labelled(by_name: dict[str, list[Point]], family: str, label: str) -> list[Line]:
    return [(_label(name, label), points) for name, points in by_name.items() if name.startswith(f"{family}{{")]


def _label(series: str, label: str) -> str:
    return series.partition(f'{label}="')[2].partition('"')[0]


def _turned(point: Point) -> Point:
    """One minus it, within 0 and 1."""
    value, least, most = (min(1.0, max(0.0, 1.0 - each)) for each in (point.value, point.most, point.least))
    return Point(point.at, value, least, most)


def _drawn(chart: _Chart, since: float, until: float) -> dict[str, Any]:
    values = [point.most for _, points in chart.lines for point in points]
    top = chart.top or max(values, default=0.0) * 1.1 or 1.0
    lines = [
        {"label": label, "path": _path(points, since, until, top), "now": chart.show(points[-1].value)}
        for label, points in chart.lines
        if points
    ]
    scale = [chart.show(top), chart.show(top / 2), chart.show(0.0)]
    return {"title": chart.title, "scale": scale, "lines": lines, "most": chart.show(max(values))}


def _path(points: list[Point], since: float, until: float, top: float) -> str:
    """An SVG path; broken where nothing was measured."""
    steps = sorted(after.at - before.at for before, after in pairwise(points))
    gap = GAP * steps[len(steps) // 2] if steps else 0.0
    found: list[str] = []
    last: float | None = None
    for point in points:
        x = (point.at - since) / (until - since) * WIDTH
        y = HEIGHT - min(1.0, point.value / top) * HEIGHT
        found.append(f"{'M' if last is None or point.at - last > gap else 'L'}{x:.1f} {y:.1f}")
        last = point.at
    if len(points) == 1:
        found.append("h2")
    return "".join(found)


def _percent(value: float) -> str:
    return f"{value * 100:.0f} %"


def _speed(value: float) -> str:
    return f"{words.size(value)}/s"

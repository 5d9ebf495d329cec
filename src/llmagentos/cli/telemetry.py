"""`llmctl node metrics` and `llmctl node logs`: what a node measures and logs."""

from __future__ import annotations

import time

import click
import msgspec

from llmagentos.api import telemetry as api
from llmagentos.api.telemetry import LogEntry, Point, Series
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import emit, emit_json, json_option, note, size, table, when
from llmagentos.cli.span import Span
from llmagentos.core.i18n import tr

POINTS = 24
_BARS = "▁▂▃▄▅▆▇█"


@click.command(help=tr("Show what a node measured, now and over a time. PATTERN is a glob, e.g. `*filesystem*`."))
@click.argument("name")
@click.argument("pattern", required=False)
@click.option("--since", type=Span(), default="1h", show_default=True, help=tr("How far back, e.g. 30m, 12h or 7d."))
@click.option("--points", type=click.IntRange(1, 2000), default=POINTS, show_default=True, help=tr("Points at most."))
@json_option
def metrics(name: str, pattern: str | None, since: float, points: int, as_json: bool) -> None:
    """One line a series; counters as their growth in a second."""
    found = execute(_series(name, pattern, since, points))
    if as_json:
        emit_json(found)
        return
    columns = [tr("Series"), tr("Now"), tr("Least"), tr("Most"), tr("Over the time")]
    empty = tr("Nothing was measured in this time that fits.")
    table(columns, [_row(series) for series in found], empty=empty)


async def _series(name: str, pattern: str | None, since: float, points: int) -> list[Series]:
    async with connected() as client:
        return await api.samples(client, name, match=pattern, since=time.time() - since, points=points)


def _row(series: Series) -> list[object]:
    def shown(value: float) -> str:
        unit = "/s" if series.rate else ""
        family = series.name.partition("{")[0]
        if "bytes" in family:
            return f"{size(value)}{unit}"
        return f"{value:.6g}{unit}"

    least, most = min(point.least for point in series.points), max(point.most for point in series.points)
    return [series.name, shown(series.points[-1].value), shown(least), shown(most), _bars(series.points, least, most)]


def _bars(points: list[Point], least: float, most: float) -> str:
    width = most - least
    return "".join(_BARS[int((point.value - least) / width * 7.999) if width > 0 else 0] for point in points[-POINTS:])


@click.command(help=tr("Show the newest lines of a node's logs."))
@click.argument("name")
@click.option("--source", help=tr("Only of sources that fit this glob."))
@click.option("--grep", "text", help=tr("Only lines that contain this, in upper or lower case."))
@click.option("--since", type=Span(), help=tr("How far back, e.g. 30m, 12h or 7d."))
@click.option("-n", "--tail", "limit", type=click.IntRange(1, 5000), default=100, show_default=True, help=tr("Lines."))
@click.option("-f", "--follow", is_flag=True, help=tr("Go on with lines as they come."))
@json_option
def logs(
    name: str, source: str | None, text: str | None, since: float | None, limit: int, follow: bool, as_json: bool
) -> None:
    """Oldest first, as `tail` does."""
    execute(_logs(name, source, text, since, limit, follow, as_json))


async def _logs(
    name: str, source: str | None, text: str | None, since: float | None, limit: int, follow: bool, as_json: bool
) -> None:
    begin = None if since is None else time.time() - since
    async with connected() as client:
        if not follow:
            found = await api.lines(client, name, source=source, text=text, since=begin, limit=limit)
            if as_json:
                emit_json(found)
            for entry in [] if as_json else found:
                _say(entry)
            if not found and not as_json:
                note(tr("No lines fit. A playbook says what is read: a file in `llmagentos_collect_dir`."))
            return
        async with api.follow(client, name, source=source, text=text) as items:
            last = 0
            for entry in await api.lines(client, name, source=source, text=text, since=begin, limit=limit):
                _say(entry, as_json)
                last = entry.id
            async for entry in items:
                if entry.id > last:
                    _say(entry, as_json)


def _say(entry: LogEntry, as_json: bool = False) -> None:
    told = msgspec.json.encode(entry).decode() if as_json else f"{when(entry.at)}  {entry.source}  {entry.text}"
    emit(told)

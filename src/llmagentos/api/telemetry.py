"""What nodes measure and log, on the wire.

A value's name is a series in Prometheus' text form, e.g. `node_filesystem_avail_bytes{mountpoint="/"}`; the
names are node-exporter's. Names that end in `_total` are counters, all others gauges. Times are seconds since
the epoch, UTC.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient

MAX_SERIES = 4000
"""In one sample."""
MAX_SAMPLES = 256
MAX_LINES = 2000
MAX_LINE = 8192
"""Characters of a log line; the rest is cut by the node."""
MAX_POINTS = 2000
"""In one answer, of one series."""

SERIES = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*\})?')
"""A series in text form (Prometheus text format 0.0.4), without a value."""

SeriesName = Annotated[str, Meta(max_length=1024)]


class Sample(msgspec.Struct, frozen=True):
    """Everything that was measured at one moment."""

    at: float
    values: Annotated[dict[SeriesName, float], Meta(max_length=MAX_SERIES)]


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of a log: `source` is the file's or the journal unit's name."""

    at: float
    source: Annotated[str, Meta(max_length=255)]
    text: Annotated[str, Meta(max_length=MAX_LINE)]


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node sends at once. A batch comes again until it was acknowledged; (spool, number) tells it apart."""

    spool: Annotated[str, Meta(max_length=32)]
    number: Annotated[int, Meta(ge=1)]
    samples: Annotated[list[Sample], Meta(max_length=MAX_SAMPLES)] = []
    lines: Annotated[list[Line], Meta(max_length=MAX_LINES)] = []


class Point(msgspec.Struct, frozen=True, array_like=True):
    """A gauge's mean over a step with its least and greatest value, or how fast a counter grew in a second."""

    at: float
    value: float
    least: float
    most: float


class Series(msgspec.Struct, frozen=True):
    """One series over a time; `rate` says that a counter is shown as its growth in a second."""

    name: str
    rate: bool
    points: list[Point]


class LogEntry(msgspec.Struct, frozen=True):
    """A stored line; ids grow in the order in which lines came."""

    id: int
    node: str
    at: float
    source: str
    text: str


Kind = Literal["gauge", "counter"]


def kind_of(series: str) -> Kind:
    """Whether a series (with or without labels) is a counter."""
    return "counter" if series.partition("{")[0].endswith("_total") else "gauge"


def header(family: str) -> str:
    """The lines that Prometheus' text format puts before the values of a family."""
    kind = kind_of(family)
    return f"# HELP {family} As the node measured it, a {kind}.\n# TYPE {family} {kind}\n"


async def send(client: ApiClient, batch: Batch) -> None:
    """Hand over a batch (by the node itself); sending it again changes nothing."""
    await client.post("/api/v1/nodes/self/telemetry", batch, type(None))


async def latest(client: ApiClient, node: str) -> Sample | None:
    """What the node measured last."""
    return await client.get(f"/api/v1/nodes/{node}/samples/latest", Sample | None)  # type: ignore[arg-type]


async def samples(
    client: ApiClient, node: str, *, match: str | None = None, since: float, until: float | None = None, points: int
) -> list[Series]:
    """Series whose names match the glob `match` over a time, in at most `points` points each."""
    query = {"match": match, "since": since, "until": until, "points": points}
    return await client.get(f"/api/v1/nodes/{node}/samples", list[Series], query=query)


async def lines(
    client: ApiClient,
    node: str,
    *,
    source: str | None = None,
    text: str | None = None,
    since: float | None = None,
    limit: int = 200,
) -> list[LogEntry]:
    """The newest lines, oldest first: of sources that match a glob, that contain `text`."""
    query = {"source": source, "text": text, "since": since, "limit": limit}
    return await client.get(f"/api/v1/nodes/{node}/logs", list[LogEntry], query=query)


@asynccontextmanager
async def follow(
    client: ApiClient, node: str, *, source: str | None = None, text: str | None = None
) -> AsyncIterator[AsyncIterator[LogEntry]]:
    """Lines as they come, from now on."""
    query = {"follow": 1, "source": source, "text": text}
    async with client.events(f"/api/v1/nodes/{node}/logs", query=query) as stream:

        async def items() -> AsyncIterator[LogEntry]:
            async for item in stream:
                yield item.decode(LogEntry)

        yield items()

"""Takes in what nodes send, keeps it within its retention, and answers for it.

Batches that come at the same time are stored in one transaction: a thousand nodes cost a few syncs a second.
"""

from __future__ import annotations

import asyncio
import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from llmagentos.api.telemetry import SERIES, Batch, Line, LogEntry, Sample, Series, kind_of
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.errors import InvalidInput, TooManyRequests
from llmagentos.core.events import Hub
from llmagentos.observe import cells
from llmagentos.observe.cells import Columns
from llmagentos.storage.telemetry import Block, Cells, Row, TelemetryRecords

FIVE_MINUTES, HOUR, DAY = 300, 3600, 86_400
BLOCKS = {FIVE_MINUTES: HOUR, HOUR: DAY}
"""How long a block of each step is."""
ROLL_S = 300.0
AHEAD_S = 300.0
"""A time so far in the future is a wrong clock: the sample counts as measured now."""
STALE_S = 300.0
"""A value so old is no longer shown as the node's."""
MAX_WAITING = 2000
MAX_NAMES = 10_000
"""Of series in a block of a rollup."""
_ROWS = 2000
_INSTANCE = re.compile(r'[{,]instance="')
_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Keep:
    """How long, in days, and how many lines of each node."""

    samples: float
    five_minutes: float
    hours: float
    logs: float
    lines: int


class Telemetry:
    """Samples and lines of all nodes. `several`: nodes may send to other servers on the same database."""

    def __init__(self, records: TelemetryRecords, hub: Hub, clock: Clock, keep: Keep, *, several: bool = False) -> None:
        self._records = records
        self._several = several
        self._hub = hub
        self._clock = clock
        self._keep = keep
        self._latest: dict[str, Sample] = {}
        self._waiting: list[tuple[str, Batch, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._seen = 0

    async def start(self) -> None:
        """Take up what was measured last."""
        self._latest = await self._records.newest()
        self._seen = await self._records.highest()

    async def take(self, node: str, batch: Batch) -> None:
        """Store a batch; returns once it is durable. Raises `InvalidInput`, `TooManyRequests`, storage's errors."""
        batch = self._checked(batch)
        if len(self._waiting) >= MAX_WAITING:
            raise TooManyRequests("too many batches wait to be stored", retry_after=5)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((node, batch, stored))
        self._wake.set()
        await stored

    def _checked(self, batch: Batch) -> Batch:
        now = self._clock.time()
        for sample in batch.samples:
            for series in sample.values:
                if not SERIES.fullmatch(series) or _INSTANCE.search(series):
                    raise InvalidInput(f"{series[:200]!r} is not a series", hint='name{label="value"}, but no instance')
        if all(0 <= each.at <= now + AHEAD_S for each in _times(batch)):
            return batch
        samples = [Sample(_within(sample.at, now), sample.values) for sample in batch.samples]
        lines = [Line(_within(line.at, now), line.source, line.text) for line in batch.lines]
        return Batch(batch.spool, batch.number, samples, lines)

    async def store(self) -> None:
        """Store what waits, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            group, self._waiting = self._waiting, []
            group = [each for each in group if not each[2].done()]
            if not group:
                continue
            try:
                entries = await self._records.add([(node, batch) for node, batch, _ in group])
            except Exception as error:  # told to those who wait: a node sends its batch again
                for _, _, stored in group:
                    if not stored.done():
                        stored.set_exception(error)
                continue
            self._stored(group, entries)

    def _stored(self, group: list[tuple[str, Batch, asyncio.Future[None]]], entries: list[LogEntry]) -> None:
        for node, batch, stored in group:
            for sample in batch.samples:
                if node not in self._latest or sample.at >= self._latest[node].at:
                    self._latest[node] = sample
            metrics.TELEMETRY_SAMPLES.inc(len(batch.samples))
            if not stored.done():
                stored.set_result(None)
            if batch.samples:
                self._hub.publish(f"samples:{node}", batch.samples[-1])
        metrics.TELEMETRY_LINES.inc(len(entries))
        for entry in entries:
            self._hub.publish(f"logs:{entry.node}", entry)

    # --- questions ----------------------------------------------------------------------------

    async def latest(self, node: str) -> Sample | None:
        """What the node measured last."""
        return await self._records.last(node) if self._several else self._latest.get(node)

    async def current(self) -> dict[str, Sample]:
        """The last sample of every node that still measures."""
        oldest = self._clock.time() - STALE_S
        known = await self._records.newest() if self._several else self._latest
        return {node: sample for node, sample in known.items() if sample.at >= oldest}

    async def series(self, node: str, *, match: str | None, since: float, until: float, points: int) -> list[Series]:
        """The series whose name, with or without labels, fits the glob `match`; at most `points` points each."""
        step = self._step(since, until, points)
        fits = _matcher(match)
        columns = await self._columns(node, step, since, until, fits)
        found: list[Series] = []
        for name in sorted(columns):
            if not fits(name):
                continue
            shown = cells.points(name, columns[name], since=since, until=until, most=points)
            if shown:
                found.append(Series(name, kind_of(name) == "counter", shown))
        return found

    def _step(self, since: float, until: float, points: int) -> int:
        now, width = self._clock.time(), (until - since) / max(1, points)
        if width <= FIVE_MINUTES / 2 and since >= now - self._keep.samples * DAY:
            return 0
        if width <= HOUR / 2 and since >= now - self._keep.five_minutes * DAY:
            return FIVE_MINUTES
        return HOUR

    async def _columns(self, node: str, step: int, since: float, until: float, fits: Callable[[str], bool]) -> Columns:
        before = since - max(step, 60)  # a counter's first point needs the value before it
        if step == 0:
            samples = await self._records.samples(node, since=before, until=until)
            return await asyncio.to_thread(cells.gather, samples, 0)
        rolled = await self._records.rolled()
        blocks = await self._records.rollup(node, step, since=before - BLOCKS[step], until=until)
        fresh = await self._records.samples(node, since=before, until=until, after_id=rolled)
        return await asyncio.to_thread(_joined, blocks, fresh, step, fits)

    async def lines(
        self, node: str, *, source: str | None, text: str | None, since: float | None, limit: int, after: int = 0
    ) -> list[LogEntry]:
        """The newest lines that fit, oldest first; only those after the id `after`."""
        return await self._records.lines(node, source=source, text=text, since=since, limit=limit, after=after)

    async def last_line(self, node: str) -> int:
        """The id of the node's newest line; 0 when there is none."""
        return await self._records.last_line(node)

    # --- keeping ------------------------------------------------------------------------------

    async def roll(self) -> None:
        """Gather into rollups, for ever.

        Only what was there at the look before: a transaction that another server still had open then has ended.
        """
        while True:
            await asyncio.sleep(ROLL_S)
            try:
                upto, self._seen = self._seen, await self._records.highest()
                more = True
                while more:
                    more = await self.roll_up(upto)
            except Exception as error:  # a supervising loop: what was not gathered is gathered later
                _log.warning("samples were not gathered", error=str(error))

    async def roll_up(self, upto: int) -> bool:
        """Gather some of the samples up to this id; whether there may be more."""
        rolled = await self._records.rolled()
        rows = await self._records.after(rolled, upto=upto, limit=_ROWS)
        if not rows:
            return False
        new = await asyncio.to_thread(_blocks, rows)
        old = await self._records.blocks(list(new))
        both = await asyncio.to_thread(_together, old, new)
        await self._records.put_blocks(both, rows[-1].id)
        return len(rows) == _ROWS

    async def prune(self) -> None:
        """Delete what is older than it is kept."""
        now, keep = self._clock.time(), self._keep
        rollups = {FIVE_MINUTES: now - keep.five_minutes * DAY, HOUR: now - keep.hours * DAY}
        await self._records.prune(
            samples=now - keep.samples * DAY, rollups=rollups, logs=now - keep.logs * DAY, lines=keep.lines
        )

    async def keep_only(self, nodes: list[str]) -> None:
        """Delete everything of nodes that were removed."""
        for node in await self._records.nodes() - set(nodes):
            self._latest.pop(node, None)
            await self._records.forget(node)


def _times(batch: Batch) -> Iterator[Sample | Line]:
    yield from batch.samples
    yield from batch.lines


def _within(at: float, now: float) -> float:
    return min(max(at, 0.0), now) if at == at else now


def _blocks(rows: list[Row]) -> dict[Block, Columns]:
    """New cells by the block in which they belong."""
    parts: dict[Block, list[Sample]] = {}
    for row in sorted(rows, key=lambda row: row.sample.at):
        for step, length in BLOCKS.items():
            parts.setdefault((row.node, step, int(row.sample.at // length * length)), []).append(row.sample)
    return {block: cells.gather(samples, block[1]) for block, samples in parts.items()}


def _together(old: Mapping[Block, Cells], new: Mapping[Block, Columns]) -> dict[Block, Cells]:
    """Stored blocks with the new cells; of a block whose names never end only the first are kept."""
    found: dict[Block, Cells] = {}
    for block, columns in new.items():
        both = cells.merged(cells.read(old.get(block, {})), columns)
        found[block] = _plain(dict(islice(both.items(), MAX_NAMES)))
    return found


def _plain(columns: Columns) -> Cells:
    return {name: [[c.at, c.value, c.least, c.most, c.count] for c in column] for name, column in columns.items()}


def _joined(blocks: Sequence[Cells], fresh: Sequence[Sample], step: int, fits: Callable[[str], bool]) -> Columns:
    """The cells of blocks, which follow each other, and of samples that are in none yet."""
    found: Columns = {}
    for block in blocks:
        for name, column in cells.read({name: stored for name, stored in block.items() if fits(name)}).items():
            found.setdefault(name, []).extend(column)
    return cells.merged(found, cells.gather(fresh, step))


def _matcher(match: str | None) -> Callable[[str], bool]:
    if match is None:
        return lambda _: True
    glob = re.compile(fnmatch.translate(match))
    return lambda name: bool(glob.fullmatch(name) or glob.fullmatch(name.partition("{")[0]))

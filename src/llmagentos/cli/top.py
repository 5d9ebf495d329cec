"""`llmctl top`: runs by use, models and nodes, live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import click
import msgspec

from llmagentos.api import control, nodes
from llmagentos.api import runs as api
from llmagentos.api.client import ApiClient
from llmagentos.api.llm import ModelInfo
from llmagentos.api.nodes import NodeSummary
from llmagentos.api.runs import Run, RunSort, RunSummary
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import duration, emit, emit_json, fit, json_option, paint, short, state
from llmagentos.cli.ps import money, waiting
from llmagentos.cli.screen import QUIT, Screen, is_terminal, screen
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.core.i18n import tr

_T = TypeVar("_T")

MOST_RUNS = 200
_NICEST, _LEAST_NICE = 19, -20


class Picture(msgspec.Struct, frozen=True):
    """The system at one moment."""

    at: float
    runs: list[RunSummary]
    models: list[ModelInfo]
    nodes: list[NodeSummary]


@dataclass
class View:
    """What somebody looks at: the picture, which run is chosen, and what was said last."""

    picture: Picture
    before: Picture | None = None
    chosen: str | None = None
    message: str = ""
    away: str | None = None
    """Why the picture is old."""
    asking: str | None = None
    """The run that is to be killed, if the next key says so."""
    rates: dict[str, float] = field(default_factory=dict)

    def renew(self, picture: Picture) -> None:
        """Look at a later picture."""
        tokens = {run.id: run.tokens_in + run.tokens_out for run in self.picture.runs}
        passed = max(1e-3, picture.at - self.picture.at)
        self.rates = {
            run.id: (run.tokens_in + run.tokens_out - tokens[run.id]) / passed
            for run in picture.runs
            if run.id in tokens
        }
        self.before, self.picture = self.picture, picture
        if self.chosen not in [run.id for run in picture.runs]:
            self.chosen = None

    @property
    def index(self) -> int:
        """The place of the chosen run; 0 without one."""
        ids = [run.id for run in self.picture.runs]
        return ids.index(self.chosen) if self.chosen in ids else 0

    def move(self, by: int) -> None:
        """Choose another run."""
        if self.picture.runs:
            place = min(max(0, self.index + by), len(self.picture.runs) - 1)
            self.chosen = self.picture.runs[place].id

    @property
    def run(self) -> RunSummary | None:
        """The chosen run."""
        return self.picture.runs[self.index] if self.picture.runs else None


@click.command(help=tr("Watch runs, models and nodes live: q quits, arrows choose, p r k + - act on a run."))
@click.option("--once", is_flag=True, help=tr("Print it once, as without a terminal."))
@click.option("--interval", type=click.FloatRange(0.2, 60), default=1.0, help=tr("Seconds between two looks."))
@json_option
def top(once: bool, interval: float, as_json: bool) -> None:
    """Runs that used most come first."""
    if as_json:
        emit_json(execute(_once()))
    elif once or not is_terminal():
        for line in body(View(execute(_once())), width=160, height=None):
            emit(line)
    else:
        execute(_live(interval))


async def _once() -> Picture:
    async with connected() as client:
        return await look(client)


async def look(client: ApiClient) -> Picture:
    """The system now."""
    found, models, known = await asyncio.gather(
        api.listing(client, ended=False, sort=RunSort.TOKENS, limit=MOST_RUNS),
        client.get("/api/v1/models", list[ModelInfo]),
        nodes.listing(client),
    )
    return Picture(time.time(), found, models, known)


async def _live(interval: float) -> None:
    async with connected() as client, screen() as shown:
        view = View(await look(client))
        due = time.monotonic() + interval
        while True:
            _draw(shown, view)
            key = await shown.pressed(max(0.0, due - time.monotonic()))
            if key == QUIT and view.asking is None:
                return
            if key is not None:
                await _act(client, view, key)
            if key is None or key in "ykpr+-":
                await _renew(client, view)
                due = time.monotonic() + interval


async def _renew(client: ApiClient, view: View) -> None:
    try:
        view.renew(await look(client))
        view.away = None
    except LLMAgentOSError as error:  # it may come back
        view.away = error.message


def _draw(shown: Screen, view: View) -> None:
    width, height = shown.size
    shown.draw(list(body(view, width=width, height=height)))


async def _act(client: ApiClient, view: View, key: str) -> None:
    """What a key does."""
    if view.asking is not None:
        run, view.asking, view.message = view.asking, None, ""
        if key == "y":
            await _told(view, lambda: control.kill(client, run))
        return
    moves = {"up": -1, "down": 1}
    if key in moves:
        view.move(moves[key])
        return
    chosen = view.run
    if chosen is None:
        return
    view.chosen = chosen.id
    if key == "k":
        view.asking, view.message = chosen.id, tr("stop the run {run}? y or n", run=chosen.id)
    elif key == "p":
        await _told(view, lambda: control.pause(client, chosen.id))
    elif key == "r":
        await _told(view, lambda: control.resume(client, chosen.id))
    elif key in ("+", "-"):
        nice = min(_NICEST, max(_LEAST_NICE, chosen.priority + (1 if key == "+" else -1)))
        await _told(view, lambda: control.renice(client, chosen.id, nice))


async def _told(view: View, act: Callable[[], Awaitable[Run]]) -> None:
    try:
        done = await act()
        view.message = f"{done.id}: {done.state.value}, {tr('priority {priority}', priority=done.priority)}"
    except LLMAgentOSError as error:
        view.message = error.message


def body(view: View, *, width: int, height: int | None) -> Iterator[str]:
    """The lines: models, nodes, then as many runs as fit into `height`."""
    head = [*_models(view.picture.models), "", *_nodes(view.picture.nodes), ""]
    if height is not None:
        head = head[: max(0, height - 6)]
        foot = view.away or view.message or tr("q quit  ↑↓ choose  p pause  r resume  k stop  + - priority")
    for line in head:
        yield fit(line, width)
    room = None if height is None else max(1, height - len(head) - 3)
    yield from _runs(view, width, room, marked=height is not None)
    if height is not None:
        yield ""
        yield fit(foot, width)


def _models(models: Sequence[ModelInfo]) -> Iterator[str]:
    yield _row([tr("Model").upper(), tr("State").upper(), tr("Running").upper(), tr("Waiting").upper()], _MODEL)
    for model in models:
        shown = f"{model.running}/{model.slots} {_bar(model.running, model.slots)}"
        yield _row([model.name, state(model.state), shown, str(model.waiting)], _MODEL)


def _nodes(known: Sequence[NodeSummary]) -> Iterator[str]:
    yield _row([tr("Node").upper(), tr("State").upper(), tr("Load").upper(), tr("Jobs").upper()], _MODEL)
    for node in known:
        load = " ".join(f"{value:.2f}" for value in node.load[:3])
        bar = _bar(node.load[0], node.cpus) if node.load else ""
        yield _row([node.name, state(node.state), f"{load} {bar}", str(node.queue)], _MODEL)


_MODEL = (24, 12, 24, 8)
_RUN = (13, 16, 10, 5, 8, 7, 8, 7)
_NARROW = 100
_LESS = (4, 5, 6)
"""Which columns of runs give way to what a run waits for in a terminal under `_NARROW` columns."""


def _runs(view: View, width: int, room: int | None, *, marked: bool) -> Iterator[str]:
    names = [
        tr("Run"),
        tr("Agent"),
        tr("State"),
        tr("Prio"),
        tr("Tokens"),
        "tok/s",
        tr("Cost"),
        tr("Age"),
        tr("Waiting"),
    ]
    left_out = _LESS if width < _NARROW else ()
    widths = _without(_RUN, left_out)
    yield fit(paint(_row([name.upper() for name in _without(names, left_out)], widths), "cyan"), width)
    first = 0 if room is None else max(0, view.index - room + 1)
    listed = view.picture.runs[first:] if room is None else view.picture.runs[first : first + room]
    for place, run in enumerate(listed, first):
        cells = [
            run.id,
            short(run.agent, 15),
            state(run.state.value),
            str(run.priority),
            str(run.tokens_in + run.tokens_out),
            f"{view.rates.get(run.id, 0.0):.0f}",
            money(run.money),
            duration(view.picture.at - run.created),
            waiting(run) if run.wait or run.paused or run.approvals else short(run.input, 40),
        ]
        line = fit(_row(_without(cells, left_out), widths), width)
        yield click.style(click.unstyle(line), reverse=True) if marked and place == view.index else line
    if not view.picture.runs:
        yield fit(tr("Nothing is running."), width)


def _without(items: Sequence[_T], left_out: Sequence[int]) -> list[_T]:
    return [item for place, item in enumerate(items) if place not in left_out]


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [fit(cell, width, pad=True) for cell, width in zip(cells, widths, strict=False)]
    return " ".join([*padded, *cells[len(widths) :]]).rstrip()


def _bar(used: float, most: float, width: int = 10) -> str:
    full = round(width * min(1.0, used / most)) if most else 0
    return "█" * full + "·" * (width - full)

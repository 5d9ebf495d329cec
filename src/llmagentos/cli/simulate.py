"""`llmctl simulate`: replay a trace of runs against scheduling policies, on this machine, without a server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from llmagentos.cli.output import emit, emit_json, json_option, note, table
from llmagentos.core.errors import InvalidInput
from llmagentos.core.i18n import tr
from llmagentos.kernel.policy import POLICIES
from llmagentos.kernel.simulator import drawing
from llmagentos.kernel.simulator.engine import EngineModel
from llmagentos.kernel.simulator.generators import GENERATORS, generate
from llmagentos.kernel.simulator.measures import Group, Report, report
from llmagentos.kernel.simulator.replay import ORACLE, replay
from llmagentos.kernel.simulator.trace import Run, dumps, loads

_NAMES = [*POLICIES, ORACLE]


@click.command(help=tr("Replay a trace of runs (JSON Lines, `-` for stdin) against scheduling policies."))
@click.argument("trace", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--policy", "policies", multiple=True, type=click.Choice(_NAMES), help=tr("A policy; may be repeated."))
@click.option("--slots", default=16, show_default=True, type=click.IntRange(1, 4096), help=tr("Calls at once."))
@click.option(
    "--prefill", default=4000.0, show_default=True, type=click.FloatRange(0.001), help=tr("Input tokens/s of a slot.")
)
@click.option(
    "--decode", default=50.0, show_default=True, type=click.FloatRange(0.001), help=tr("Output tokens/s of a slot.")
)
@click.option(
    "--cached", default=0, show_default=True, type=click.IntRange(0), help=tr("Runs whose contexts stay cached.")
)
@click.option("--gantt", type=click.Path(dir_okay=False, path_type=Path), help=tr("Draw slots over time (SVG)."))
@click.option("--fairness", type=click.Path(dir_okay=False, path_type=Path), help=tr("Draw tenants' service (SVG)."))
@click.option("--generate", "kind", type=click.Choice(list(GENERATORS)), help=tr("Write a trace of this kind instead."))
@click.option("--seed", default=1, show_default=True, help=tr("With --generate: the seed."))
@click.option(
    "--runs", default=500, show_default=True, type=click.IntRange(1, 100_000), help=tr("With --generate: how many.")
)
@click.option(
    "--load",
    default=0.97,
    show_default=True,
    type=click.FloatRange(0.01, 100),
    help=tr("With --generate: work over what the engine can do."),
)
@json_option
def simulate(
    trace: str | None,
    policies: tuple[str, ...],
    slots: int,
    prefill: float,
    decode: float,
    cached: int,
    gantt: Path | None,
    fairness: Path | None,
    kind: str | None,
    seed: int,
    runs: int,
    load: float,
    as_json: bool,
) -> None:
    """Exit code 2 for a trace that cannot be read as one."""
    engine = EngineModel(slots, prefill, decode, cached)
    if kind is not None:
        if trace is not None:
            raise InvalidInput("--generate writes a trace, it reads none", hint="leave the file out")
        for line in dumps(generate(kind, seed=seed, runs=runs, load=load, engine=engine)):
            emit(line)
        return
    if trace is None:
        raise InvalidInput("no trace", hint="llmctl simulate --generate mix > trace.jsonl writes one")
    asked = _read(trace)
    found = [replay(asked, policy, engine) for policy in policies or ("fcfs", "plas", "fair")]
    if gantt is not None:
        _write(gantt, drawing.gantt(found, time_label=tr("seconds"), slot_label=tr("slot")))
    if fairness is not None:
        _write(fairness, drawing.fairness(found, time_label=tr("seconds"), service_label=tr("tokens")))
    reports = [report(one) for one in found]
    if as_json:
        emit_json(reports)
    else:
        _show(reports)


def _read(trace: str) -> list[Run]:
    if trace == "-":
        return loads(sys.stdin, name="stdin")
    with Path(trace).open(encoding="utf-8", errors="replace") as lines:
        return loads(lines, name=trace)


def _write(path: Path, drawn: str) -> None:
    path.write_text(drawn, encoding="utf-8")
    note(tr("{path} written", path=path))


def _show(reports: Sequence[Report]) -> None:
    kinds = [tr("All"), *(group.name for group in reports[0].kinds)] if len(reports[0].kinds) > 1 else [tr("All")]
    columns = [tr("Policy"), tr("Class"), tr("Runs"), tr("Mean s"), "p50 s", "p99 s", tr("Slowdown"), tr("Wait s")]
    rows: list[list[object]] = []
    for found in reports:
        groups = [found.total, *found.kinds][: len(kinds)]
        rows += [_row(found, kind, group) for kind, group in zip(kinds, groups, strict=True)]
    table(columns, rows)
    note("")
    table(
        [tr("Policy"), tr("Makespan s"), tr("Tokens/s"), tr("Fairness (Jain)")],
        [(r.policy, f"{r.makespan:.1f}", f"{r.tokens_per_s:,.0f}", f"{r.jain:.3f}") for r in reports],
    )


def _row(found: Report, kind: str, group: Group) -> list[object]:
    times = [f"{value:.2f}" for value in (group.mean, group.p50, group.p99, group.slowdown, group.wait)]
    return [found.policy, kind, group.runs, *times]

"""`llmctl doctor`: checks of this machine and of the system, each with what to do. Works while nothing runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from llmagentos.cli.checks import all_checks
from llmagentos.cli.finding import Finding
from llmagentos.cli.output import emit, emit_json, json_option, paint, table
from llmagentos.core.i18n import tr

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(help=tr("Check this machine and the system, and say what to do. Exit code 1 when something fails."))
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help=tr("State directory (default: the nearest .llmagentos)."),
)
@click.option(
    "-f",
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=tr("Configuration (default: ./llmagentos.yaml when it exists)."),
)
@json_option
@click.pass_context
def doctor(ctx: click.Context, state: Path | None, file: Path | None, as_json: bool) -> None:
    """All checks, in the order in which a fault in one explains the next."""
    findings = list(all_checks(state, file))
    if as_json:
        emit_json(findings)
    else:
        _show(findings)
    ctx.exit(1 if any(finding.verdict == "fail" for finding in findings) else 0)


def _show(findings: list[Finding]) -> None:
    table([tr("Check"), "", tr("Finding")], _rows(findings))
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in _COLOURS}
    emit()
    emit(tr("{ok} fine, {warn} to look at, {fail} failed", **counts))


def _rows(findings: list[Finding]) -> Iterator[list[str]]:
    for finding in findings:
        yield [finding.check, paint(finding.verdict.upper(), _COLOURS[finding.verdict]), finding.message]
        if finding.hint:
            yield ["", "", f"→ {finding.hint}"]

"""`llmctl budget show`, `set`, `delete`."""

from __future__ import annotations

from decimal import Decimal

import click

from llmagentos.api import budgets as api
from llmagentos.api.budgets import MONEY, Budget, Budgets, BudgetSpec, BudgetWait, Limit, LimitUsage, OnLimit, Resource
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import ago, duration, emit, emit_json, json_option, note, paint, when
from llmagentos.core.errors import InvalidInput, NotFound
from llmagentos.core.i18n import tr

_BAR = 20
_OPTIONS: tuple[tuple[str, Resource], ...] = (
    ("tokens", "tokens"),
    ("money", "money"),
    ("calls", "calls"),
    ("tool_calls", "tool_calls"),
    ("time", "seconds"),
    ("runs", "runs"),
)


@click.group(help=tr("Limits on what teams, agents and runs may spend, and how far they are used."))
def budget() -> None:
    """A tree: org, org/TEAM, org/TEAM/AGENT, org/TEAM/AGENT/RUN."""


@budget.command(help=tr("Show the tree, or the part at and below PATH."))
@click.argument("path", required=False, default="")
@json_option
def show(path: str, as_json: bool) -> None:
    """Bars show what is used (#) and what calls under way hold (+)."""
    found = execute(_show(path))
    if as_json:
        emit_json(found)
        return
    for node in found.budgets:
        _print(node, found.currency)
    for wait in found.waiting:
        _print_wait(wait)
    if not any(node.limits for node in found.budgets):
        note(tr("No limits are set: `llmctl budget set PATH --tokens 100k/day`"))


async def _show(path: str) -> Budgets:
    async with connected() as client:
        return await api.listing(client, path)


def _print(node: Budget, currency: str) -> None:
    indent = "  " * node.path.count("/")
    spent = ", ".join(
        f"{amount(resource, n, currency)} {_name(resource)}".rstrip() for resource, n in node.spent.items()
    )
    emit(f"{indent}{paint(node.path, 'cyan', bold=True)}  {spent}".rstrip())
    for limit in node.limits:
        emit(f"{indent}  {_line(limit, currency)}")


def _line(limit: LimitUsage, currency: str) -> str:
    most = amount(limit.resource, limit.amount, currency)
    period = "" if limit.period == "life" else f"/{limit.period}"
    share = limit.used / limit.amount if limit.amount else 1.0
    used = amount(limit.resource, limit.used, currency)
    told = f"{used} / {most}{period} {_name(limit.resource)}".rstrip()
    kind = "" if limit.hard else f" {tr('soft')}"
    resets = "" if limit.resets_at is None else f" {tr('until {time}', time=when(limit.resets_at))}"
    colour = "green" if share < 0.8 else "yellow" if share < 1 else "red"
    return f"{paint(bar(limit.used, limit.reserved, limit.amount), colour)} {share:>4.0%} {told}{kind}{resets}"


def bar(used: int, reserved: int, most: int) -> str:
    """`[######++....]`: used, held by calls under way, free."""
    whole = max(1, most)
    full = min(_BAR, _BAR * used // whole)
    held = min(_BAR - full, -(-_BAR * reserved // whole))
    return f"[{'#' * full}{'+' * held}{'.' * (_BAR - full - held)}]"


def amount(resource: str, value: int, currency: str) -> str:
    """A whole number of the resource's unit, for people."""
    if resource == "money":
        exact = Decimal(value) / MONEY
        return f"{exact:.2f} {currency}" if exact == round(exact, 2) else f"{exact.normalize():f} {currency}"
    return duration(value) if resource == "seconds" and value else f"{value:,}"


def _name(resource: str) -> str:
    return {
        "tokens": tr("tokens"),
        "money": "",
        "calls": tr("calls"),
        "tool_calls": tr("tool calls"),
        "seconds": tr("of work"),
        "runs": tr("runs at once"),
    }[resource]


def _print_wait(wait: BudgetWait) -> None:
    resets = tr("a higher limit") if wait.resets_at is None else when(wait.resets_at)
    emit(
        tr(
            "run {run} waits for {resource} of {path} since {since}, until {resets}",
            run=wait.run,
            resource=_name(wait.resource) or tr("money"),
            path=wait.path,
            since=ago(wait.since),
            resets=resets,
        )
    )


@budget.command("set", help=tr("Set limits of PATH: org, org/TEAM, org/TEAM/AGENT. Others that it has stay."))
@click.argument("path")
@click.option("--tokens", multiple=True, metavar="N[/PERIOD]", help=tr("Tokens of models, e.g. 100k/day."))
@click.option("--money", multiple=True, metavar="N[/PERIOD]", help=tr("Money by the configured prices, e.g. 5/month."))
@click.option("--calls", multiple=True, metavar="N[/PERIOD]", help=tr("Calls to models, e.g. 1000/hour."))
@click.option("--tool-calls", multiple=True, metavar="N[/PERIOD]", help=tr("Calls of tools."))
@click.option("--time", multiple=True, metavar="N[/PERIOD]", help=tr("Time that runs work, e.g. 2h/day."))
@click.option("--runs", multiple=True, metavar="N", help=tr("Runs under way at the same time."))
@click.option("--hard/--soft", default=True, help=tr("A soft limit only warns."))
@click.option("--on-limit", type=click.Choice(["pause", "refuse"]), help=tr("What a hard limit does to a run."))
@click.option("--warn-at", metavar="PERCENT,...", help=tr("Raise an alert at these percentages, e.g. 50,80,100."))
@json_option
def put(
    path: str, hard: bool, on_limit: OnLimit | None, warn_at: str | None, as_json: bool, **texts: tuple[str, ...]
) -> None:
    """Periods are hour, day, month (UTC); without one the limit is for life."""
    thresholds = _thresholds(warn_at)
    limits = [
        api.parse_limit(resource, text, hard=hard, thresholds=thresholds)
        for name, resource in _OPTIONS
        for text in texts[name]
    ]
    if not limits and on_limit is None:
        raise InvalidInput(tr("no limit is named"), hint=f"`llmctl budget set {path} --tokens 100k/day`")
    found = execute(_put(path, limits, on_limit))
    if as_json:
        emit_json(found)
    else:
        _print(found, execute(_show(path)).currency)


async def _put(path: str, limits: list[Limit], on_limit: OnLimit | None) -> Budget:
    async with connected() as client:
        try:
            before = (await api.listing(client, path)).budgets[0]
        except NotFound:
            before = Budget(path, [], "pause", {}, {})
        new = {(limit.resource, limit.period, limit.hard) for limit in limits}
        kept = [
            Limit(old.resource, old.amount, old.period, old.hard, old.thresholds)
            for old in before.limits
            if (old.resource, old.period, old.hard) not in new
        ]
        spec = BudgetSpec([*kept, *limits], on_limit or before.on_limit)
        return await api.put(client, path, spec)


def _thresholds(text: str | None) -> list[float] | None:
    if text is None:
        return None
    parts = [part.strip().removesuffix("%") for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 1000 for part in parts):
        raise InvalidInput(tr("{given} is no list of percentages", given=repr(text)), hint="--warn-at 50,80,100")
    return [int(part) / 100 for part in parts]


@budget.command(help=tr("Take all limits of PATH away. What was spent stays."))
@click.argument("path")
def delete(path: str) -> None:
    """Exit code 2 when it has none."""
    execute(_delete(path))
    note(tr("{path} has no limits any more", path=path))


async def _delete(path: str) -> None:
    async with connected() as client:
        await api.delete(client, path)

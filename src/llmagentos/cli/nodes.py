"""`llmctl nodes`: which machines there are."""

from __future__ import annotations

from collections.abc import Callable

import click

from llmagentos.api import nodes as api
from llmagentos.api.nodes import NodeSummary
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import ago, emit_json, json_option, paint, size, state, table, warn
from llmagentos.core.errors import InvalidInput, nearest
from llmagentos.core.i18n import tr

DEFAULT = ("name", "state", "os", "cpus", "memory", "load", "queue", "modules", "seen")


def _columns() -> dict[str, tuple[str, Callable[[NodeSummary], object]]]:
    """Every column by its name: its heading and its value."""
    return {
        "name": (tr("Node"), lambda node: node.name),
        "state": (tr("State"), standing),
        "os": (tr("System"), lambda node: node.os or "-"),
        "cpus": (tr("CPUs"), lambda node: node.cpus or "-"),
        "memory": (tr("Memory"), lambda node: size(node.memory_bytes or None)),
        "gpus": (tr("GPUs"), lambda node: node.gpus or "-"),
        "load": (tr("Load"), lambda node: f"{node.load[0]:.2f}" if node.load else "-"),
        "queue": (tr("Queue"), lambda node: node.queue),
        "modules": (tr("Modules"), _modules),
        "labels": (tr("Labels"), lambda node: labels(node) or "-"),
        "groups": (tr("Groups"), lambda node: " ".join(node.groups) or "-"),
        "version": (tr("Node agent"), lambda node: node.version or "-"),
        "joined": (tr("Joined"), lambda node: ago(node.joined)),
        "seen": (tr("Seen"), lambda node: ago(node.seen)),
    }


@click.command(help=tr("List nodes."))
@click.option(
    "-f", "--filter", "expression", help=tr("Only those that match, e.g. `os=debian and mem>4GiB and not gpu`.")
)
@click.option("-c", "--columns", help=tr("Columns with commas; `all`: all of them."))
@json_option
def nodes(expression: str | None, columns: str | None, as_json: bool) -> None:
    """One line a node."""
    known = _columns()
    chosen = _chosen(columns, list(known))
    found = execute(listing(expression))
    if as_json:
        emit_json(found)
        return
    empty = tr("No nodes yet. `llmctl token create --kind join NAME`, then `llmctl node join URL` on the machine.")
    table(
        [known[name][0] for name in chosen],
        [[known[name][1](node) for name in chosen] for node in found],
        empty=tr("No node matches.") if expression else empty,
    )
    for node in found:
        if node.trouble is not None:
            warn(f"{node.name}: {node.trouble.message} ({ago(node.trouble.at)})")


async def listing(expression: str | None) -> list[NodeSummary]:
    """The nodes that an expression matches, or all."""
    async with connected() as client:
        return await api.listing(client, filter=expression)


def _chosen(columns: str | None, known: list[str]) -> list[str]:
    if columns is None:
        return [*DEFAULT]
    if columns == "all":
        return known
    chosen = [name.strip().lower() for name in columns.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            close = nearest(name, known)
            hint = tr("did you mean {close}?", close=repr(close)) if close else ", ".join(known)
            raise InvalidInput(tr("there is no column {name}", name=repr(name)), hint=hint)
    return chosen or [*DEFAULT]


def standing(node: NodeSummary) -> str:
    """Whether it is there, and whether it takes jobs."""
    return state(node.state) + ("" if node.availability == "open" else paint(f", {node.availability}", "yellow"))


def labels(node: NodeSummary) -> str:
    """Its labels as they are set."""
    return " ".join(f"{name}={text}" if text else name for name, text in node.labels.items())


def _modules(node: NodeSummary) -> str:
    running = sum(module.state == "running" for module in node.modules)
    return f"{running}/{len(node.modules)}" if node.modules else "-"

"""`llmctl nodes`, and what `llmctl node` shows and removes."""

from __future__ import annotations

import time

import click

from llmagentos.api import nodes as api
from llmagentos.api.nodes import ModuleUnit, Node, NodeSummary
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import ago, emit, emit_json, fields, json_option, note, size, state, table, warn
from llmagentos.core.i18n import tr

SKEW_S = 5.0
"""From this on a node's clock is worth a warning: certificates, tokens and logs rely on it."""


@click.command(help=tr("List nodes."))
@json_option
def nodes(as_json: bool) -> None:
    """One line a node."""
    found = execute(_listing())
    if as_json:
        emit_json(found)
        return
    table(
        [
            tr("Node"),
            tr("State"),
            tr("System"),
            tr("CPUs"),
            tr("Memory"),
            tr("Load"),
            tr("Queue"),
            tr("Modules"),
            tr("Seen"),
        ],
        [_row(node) for node in found],
        empty=tr("No nodes yet. `llmctl token create --kind join NAME`, then `llmctl node join URL` on the machine."),
    )


async def _listing() -> list[NodeSummary]:
    async with connected() as client:
        return await api.listing(client)


def _row(node: NodeSummary) -> list[object]:
    load = f"{node.load[0]:.2f}" if node.load else "-"
    running = sum(module.state == "running" for module in node.modules)
    modules = f"{running}/{len(node.modules)}" if node.modules else "-"
    memory = size(node.memory_bytes or None)
    return [
        node.name,
        state(node.state),
        node.os or "-",
        node.cpus or "-",
        memory,
        load,
        node.queue,
        modules,
        ago(node.seen),
    ]


@click.command(help=tr("Show a node: what it is, and the modules on it."))
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Facts, signs of life, modules."""
    found = execute(_show(name))
    if as_json:
        emit_json(found)
        return
    fields(_facts(found))
    if abs(found.clock_offset_s) > SKEW_S:
        warn(tr("its clock is off by {seconds} s: set it by NTP", seconds=f"{found.clock_offset_s:+.1f}"))
    if found.summary.modules:
        emit()
        table(
            [tr("Module"), tr("State"), tr("PID"), tr("Restarts"), tr("Started"), tr("Note")],
            [_module(unit) for unit in found.summary.modules],
        )


async def _show(name: str) -> Node:
    async with connected() as client:
        return await api.show(client, name)


def _facts(node: Node) -> list[tuple[str, object]]:
    summary, facts, beat = node.summary, node.facts, node.heartbeat
    pairs: list[tuple[str, object]] = [
        (tr("Node"), summary.name),
        (tr("State"), state(summary.state)),
        (tr("Last seen"), ago(summary.seen)),
        (tr("Host name"), facts.hostname),
        (tr("System"), facts.os),
        (tr("Kernel"), " ".join(part for part in (facts.kernel, facts.architecture) if part)),
        (tr("CPUs"), facts.cpus or ""),
        (tr("Memory"), _of(beat.memory_available_bytes, facts.memory_bytes)),
        (tr("Disk"), _of(beat.disk_free_bytes, facts.disk_bytes)),
        (tr("Load"), " ".join(f"{value:.2f}" for value in beat.load)),
        (tr("Addresses"), ", ".join(facts.addresses)),
        (tr("Up since"), ago(facts.boot) if 0 < facts.boot < time.time() else ""),
        ("Python", facts.python),
        ("ansible-core", facts.ansible),
        (tr("Node agent"), facts.version + (f" ({facts.user})" if facts.user else "")),
        (tr("Queue"), summary.queue),
        *((name, value) for name, value in facts.extra.items()),
    ]
    return [(name, value) for name, value in pairs if value != ""]


def _of(free: int, total: int) -> str:
    return tr("{free} free of {total}", free=size(free), total=size(total)) if total else ""


def _module(unit: ModuleUnit) -> list[object]:
    return [unit.name, state(unit.state), unit.pid or "-", unit.restarts, ago(unit.started), unit.message or ""]


@click.command(help=tr("Take a node out: it and its modules lose their tokens, its queued jobs are cancelled."))
@click.argument("name")
def remove(name: str) -> None:
    """What runs on the machine is left alone; it is told nothing any more."""
    execute(_remove(name))
    note(tr("node {name} is removed", name=name))


async def _remove(name: str) -> None:
    async with connected() as client:
        await api.remove(client, name)

"""`llmctl node show`: all that is known of a node."""

from __future__ import annotations

import time

import click

from llmagentos.api import jobs as jobs_api
from llmagentos.api import nodes as api
from llmagentos.api.jobs import JobSummary
from llmagentos.api.nodes import CertificateInfo, ModuleUnit, Node
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.nodes import labels, standing
from llmagentos.cli.output import ago, emit, emit_json, fields, json_option, size, state, table, warn, when
from llmagentos.core.i18n import tr

SKEW_S = 5.0
"""From this on a node's clock is worth a warning: certificates, tokens and logs rely on it."""
JOBS = 5


@click.command(help=tr("Show a node: what it is, its certificate, its modules, its newest jobs."))
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Facts, signs of life, identity, modules, jobs."""
    found, newest = execute(_show(name))
    if as_json:
        emit_json(found)
        return
    fields(_facts(found))
    if abs(found.clock_offset_s) > SKEW_S:
        warn(tr("its clock is off by {seconds} s: set it by NTP", seconds=f"{found.clock_offset_s:+.1f}"))
    if (trouble := found.summary.trouble) is not None:
        warn(f"{trouble.message} ({ago(trouble.at)})")
    if found.summary.modules:
        emit()
        table(
            [tr("Module"), tr("State"), tr("PID"), tr("Restarts"), tr("Started"), tr("Note")],
            [_module(unit) for unit in found.summary.modules],
        )
    if found.allowed:
        emit()
        table(
            [tr("May run modules"), tr("Allowed by"), tr("When")],
            [(grant.pattern, grant.by, ago(grant.at)) for grant in found.allowed],
        )
    if newest:
        emit()
        table(
            [tr("Job"), tr("Playbook"), tr("State"), tr("Made"), tr("By")],
            [(job.id, job.name, state(job.state), ago(job.created), job.created_by) for job in newest],
        )


async def _show(name: str) -> tuple[Node, list[JobSummary]]:
    async with connected() as client:
        found = await api.show(client, name)
        return found, await jobs_api.listing(client, limit=JOBS, node=name)


def _facts(node: Node) -> list[tuple[str, object]]:
    summary, facts, beat = node.summary, node.facts, node.heartbeat
    pairs: list[tuple[str, object]] = [
        (tr("Node"), summary.name),
        (tr("State"), standing(summary)),
        (tr("Last seen"), ago(summary.seen)),
        (tr("Labels"), labels(summary)),
        (tr("Groups"), " ".join(summary.groups)),
        (tr("Host name"), facts.hostname),
        (tr("System"), facts.os),
        (tr("Kernel"), " ".join(part for part in (facts.kernel, facts.architecture) if part)),
        (tr("CPUs"), facts.cpus or ""),
        (tr("GPUs"), ", ".join(facts.gpus)),
        (tr("Memory"), _of(beat.memory_available_bytes, facts.memory_bytes)),
        (tr("Disk"), _of(beat.disk_free_bytes, facts.disk_bytes)),
        (tr("Load"), " ".join(f"{value:.2f}" for value in beat.load)),
        (tr("Addresses"), ", ".join(facts.addresses)),
        (tr("Up since"), ago(facts.boot) if 0 < facts.boot < time.time() else ""),
        ("Python", facts.python),
        ("ansible-core", facts.ansible),
        (tr("Node agent"), facts.version + (f" ({facts.user})" if facts.user else "")),
        (tr("Upgrade"), _upgrade(node)),
        (tr("Certificate"), _certificate(node.certificate)),
        (tr("Queue"), summary.queue),
        *((name, value) for name, value in facts.extra.items()),
    ]
    return [(name, value) for name, value in pairs if value != ""]


def _certificate(info: CertificateInfo | None) -> str:
    if info is None:
        return ""
    if info.revoked is not None:
        return tr("revoked {when}", when=when(info.revoked))
    return tr("{serial}, until {when}", serial=info.serial[-12:], when=when(info.expires))


def _upgrade(node: Node) -> str:
    upgrade = node.upgrade
    if upgrade is None:
        return ""
    words = {"wanted": tr("under way"), "done": tr("done"), "failed": tr("failed, rolled back")}
    message = f": {upgrade.message}" if upgrade.message else ""
    return f"{upgrade.version} {words[upgrade.state]} ({ago(upgrade.at)}){message}"


def _of(free: int, total: int) -> str:
    return tr("{free} free of {total}", free=size(free), total=size(total)) if total else ""


def _module(unit: ModuleUnit) -> list[object]:
    return [unit.name, state(unit.state), unit.pid or "-", unit.restarts, ago(unit.started), unit.message or ""]

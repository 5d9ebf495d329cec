"""Nodes: rows of the table, and one node with its facts and modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmagentos.api.nodes import ModuleUnit, Node, NodeSummary
from llmagentos.server.console import words
from llmagentos.server.console.words import Translate

CLOCK_TOLERANCE_S = 2.0


def rows(nodes: Iterable[NodeSummary]) -> list[dict[str, Any]]:
    """Nodes as the table shows them."""
    return [
        {
            "name": node.name,
            "state": node.state,
            "availability": node.availability,
            "labels": _labels(node),
            "trouble": node.trouble,
            "system": node.os,
            "load": f"{node.load[0]:.2f}" if node.load else "",
            "queue": node.queue,
            "modules": node.modules,
            "seen": node.seen,
        }
        for node in nodes
    ]


def page(node: Node, t: Translate) -> dict[str, Any]:
    """One node. Facts that it has not told are left out."""
    summary = node.summary
    return {
        "name": summary.name,
        "state": summary.state,
        "availability": summary.availability,
        "trouble": summary.trouble,
        "labels": _labels(summary),
        "groups": summary.groups,
        "certificate": node.certificate,
        "allowed": node.allowed,
        "upgrade": node.upgrade,
        "seen": summary.seen,
        "facts": [(name, value) for name, value in _facts(node, t) if value],
        "modules": [_module(unit) for unit in summary.modules],
    }


def _labels(node: NodeSummary) -> list[str]:
    return [f"{name}={text}" if text else name for name, text in node.labels.items()]


def _module(unit: ModuleUnit) -> dict[str, Any]:
    state = "up" if unit.state == "running" else unit.state
    return {
        "name": unit.name,
        "state": state,
        "restarts": unit.restarts,
        "started": unit.started,
        "note": unit.message,
    }


def _facts(node: Node, t: Translate) -> list[tuple[str, str]]:
    facts, beat = node.facts, node.heartbeat
    ahead = node.clock_offset_s
    return [
        (t("Load"), "  ".join(f"{load:.2f}" for load in beat.load)),
        (t("Memory free"), _free(beat.memory_available_bytes, facts.memory_bytes, t)),
        (t("Disk free"), _free(beat.disk_free_bytes, facts.disk_bytes, t)),
        (t("System"), facts.os),
        (t("Kernel"), facts.kernel),
        (t("Processors"), f"{facts.cpus} {facts.architecture}".strip() if facts.cpus else facts.architecture),
        (t("Accelerators"), ", ".join(facts.gpus)),
        (t("Host name"), facts.hostname if facts.hostname != node.summary.name else ""),
        (t("Addresses"), ", ".join(facts.addresses)),
        (t("User"), facts.user),
        ("Python", facts.python),
        ("Ansible", facts.ansible),
        (t("Node agent"), facts.version),
        (t("Clock"), _clock(ahead, t) if abs(ahead) > CLOCK_TOLERANCE_S else ""),
    ]


def _free(free: int, total: int, t: Translate) -> str:
    if not free:
        return words.size(total) if total else ""
    return t("{free} of {total}", free=words.size(free), total=words.size(total)) if total else words.size(free)


def _clock(ahead: float, t: Translate) -> str:
    time = words.duration(abs(ahead))
    return t("{time} ahead of the server", time=time) if ahead > 0 else t("{time} behind the server", time=time)

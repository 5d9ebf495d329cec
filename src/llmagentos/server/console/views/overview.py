"""The overview: one tile a noun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmagentos.api.agents import AgentInfo
from llmagentos.api.approvals import Approval
from llmagentos.api.jobs import JobSummary
from llmagentos.api.llm import ModelInfo
from llmagentos.api.nodes import NodeSummary
from llmagentos.api.registry import Instance
from llmagentos.server.console.words import Translate


@dataclass(frozen=True, slots=True)
class Tile:
    """One noun at a glance: a number or a state, and a line on it."""

    href: str
    name: str
    value: str
    look: str = ""
    note: str = ""


def runs(counts: Mapping[str, int], t: Translate) -> Tile:
    """Runs that go on, and how those that are kept ended."""
    going, waiting = counts.get("running", 0), counts.get("queued", 0)
    succeeded, failed = counts.get("succeeded", 0), counts.get("failed", 0)
    notes = [
        t("waiting: {count}", count=waiting) if waiting else "",
        t("succeeded: {count}", count=succeeded) if succeeded else "",
        t("failed: {count}", count=failed) if failed else "",
    ]
    value = t("{count} running", count=going) if going else t("None running")
    return Tile("/runs", t("Runs"), value, "busy" if going else "", " · ".join(filter(None, notes)))


def approvals(waiting: Sequence[Approval], t: Translate) -> Tile:
    """How many tool calls and jobs wait for a person, and the first of them."""
    if not waiting:
        return Tile("/approvals", t("Approvals"), t("None waiting"))
    value = t("{count} waiting", count=len(waiting))
    return Tile("/approvals", t("Approvals"), value, "warn", _names([each.tool for each in waiting]))


def agents(found: Sequence[AgentInfo], t: Translate) -> Tile:
    """How many agents, and those that nobody hosts now."""
    absent = [agent.name for agent in found if not agent.online]
    note = t("not running: {names}", names=_names(absent)) if absent else _names([agent.name for agent in found])
    return Tile("/agents", t("Agents"), str(len(found)), "warn" if absent else "", note)


def services(instances: Sequence[Instance], t: Translate) -> Tile:
    """How many services, and on how many instances."""
    names = {service.name for instance in instances for service in instance.services}
    note = t("instances: {count}", count=len(instances)) if instances else ""
    return Tile("/services", t("Services"), str(len(names)), "", note)


def models(found: Sequence[ModelInfo], t: Translate) -> Tile:
    """Whether all models are ready, else what they do."""
    states = Counter(model.state for model in found)
    if not found:
        return Tile("/models", t("Models"), t("None"))
    if bad := states["unreachable"] + states["failed"]:
        value, look = t("{count} unreachable", count=bad), "bad"
    elif states["loading"]:
        value, look = t("{count} loading", count=states["loading"]), "busy"
    else:  # those that are not in memory are loaded when they are called
        value, look = t("{count} ready", count=states["ready"] + states["unloaded"]), "ok"
    return Tile("/models", t("Models"), value, look, _names([model.name for model in found]))


def jobs(found: Sequence[JobSummary], t: Translate) -> Tile:
    """What the newest jobs are doing."""
    states = Counter(job.state for job in found)
    if not found:
        return Tile("/jobs", t("Jobs"), t("None"))
    value, look = t("None running"), ""
    if states["running"]:
        value, look = t("{count} running", count=states["running"]), "busy"
    elif states["queued"]:
        value, look = t("{count} waiting", count=states["queued"]), "wait"
    elif found[0].state == "failed":
        value, look = t("Last one failed"), "bad"
    elif found[0].state == "succeeded":
        value, look = t("Last one succeeded"), "ok"
    return Tile("/jobs", t("Jobs"), value, look, found[0].name)


def nodes(found: Sequence[NodeSummary], t: Translate) -> Tile:
    """How many nodes are there, and who is away."""
    away = [node.name for node in found if node.state == "away"]
    if not found:
        return Tile("/nodes", t("Nodes"), t("None"))
    if away:
        return Tile("/nodes", t("Nodes"), t("{count} away", count=len(away)), "bad", _names(away))
    value = t("{count} ready", count=len(found))
    return Tile("/nodes", t("Nodes"), value, "ok", _names([node.name for node in found]))


def _names(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")

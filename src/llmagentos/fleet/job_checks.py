"""What a job is checked for before anything of it is stored: its playbooks, its rollout, its window."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from llmagentos.api.job_control import Rollout
from llmagentos.api.jobs import Inventory, JobSpec
from llmagentos.core.errors import InvalidInput, nearest
from llmagentos.fleet.playbooks.plan import Plan, plan
from llmagentos.kernel.rollout import partition

_BLANK = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_NODE = frozenset({"node", "inventory_hostname"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a job runs; `driven`: something more than its queues decides when."""

    hosts: list[str]
    inventory: Inventory
    local: bool
    driven: bool
    batches: list[tuple[str, ...]] = field(default_factory=list)


def check(spec: JobSpec, content: bytes, nodes: Sequence[str], windows: Collection[str]) -> Wanted:
    """Check all that can be known now; blocks. Raises `InvalidInput` and its kinds, with file:line for playbooks."""
    if spec.window is not None and spec.window not in windows:
        close = nearest(spec.window, windows)
        raise InvalidInput(
            f"there is no maintenance window {spec.window!r}",
            hint=f"did you mean {close!r}?" if close else "llmagentos.yaml: windows",
        )
    if missing := set(spec.secrets) - spec.extra_vars.keys():
        raise InvalidInput(f"secrets names {sorted(missing)[0]!r}, which extra_vars has not")
    planned = plan(spec, content, nodes)
    if planned.inventory.span is not None and (spec.rollout is not None or spec.retries is not None):
        raise InvalidInput(
            f"{spec.playbook} has plays in which nodes wait for each other: neither a rollout nor retries go with it",
            hint="--no-lockstep, when the plays can do without",
        )
    batches: list[tuple[str, ...]] = []
    if spec.rollout is not None:
        batches = partition(planned.hosts, spec.rollout.batches)
        _check_rollout(spec, spec.rollout, planned, content, nodes)
    return Wanted(planned.hosts, planned.inventory, planned.local, driven(spec), batches)


def driven(spec: JobSpec) -> bool:
    """Whether a job waits for more than its turn in the queues, now or later."""
    held = (spec.retries, spec.lock, spec.window, spec.approval, spec.rollout, spec.total_timeout_s)
    return any(each is not None for each in held)


def _check_rollout(spec: JobSpec, rollout: Rollout, planned: Plan, content: bytes, nodes: Sequence[str]) -> None:
    if rollout.gate is not None and rollout.gate_playbook is not None:
        raise InvalidInput("a rollout has one gate: a URL or a playbook, not both")
    for size in rollout.batches:
        if size.rstrip("%").strip("0.") == "":
            raise InvalidInput(f"a batch of {size!r} nodes never ends", hint="like 1, 25%, 100%")
    for playbook in (rollout.gate_playbook, rollout.rollback):
        if playbook is not None:
            plan(msgspec.structs.replace(spec, playbook=playbook), content, nodes)
    if rollout.gate is not None:
        for node in planned.hosts:
            gate_url(rollout.gate, node, planned.inventory)


def gate_url(template: str, node: str, inventory: Inventory) -> str:
    """The gate's address for `node`. Raises `InvalidInput` for a variable that it has not, or what is no URL."""
    known = variables(node, inventory)

    def fill(found: re.Match[str]) -> str:
        if found[1] not in known:
            close = nearest(found[1], known)
            raise InvalidInput(
                f"the gate {template!r} needs {found[1]!r}, which node {node!r} has not in the inventory",
                hint=f"did you mean {close!r}?" if close else "`{{ node }}` is the node's name",
            )
        return str(known[found[1]])

    url = _BLANK.sub(fill, template)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(char.isspace() for char in url):
        raise InvalidInput(f"the gate {url!r} is no http(s) URL", hint="like http://{{ node }}:8080/health")
    return url


def variables(node: str, inventory: Inventory) -> Mapping[str, Any]:
    """What the inventory says of `node`: its groups' variables, the nearer group's first, then its own."""
    found: dict[str, Any] = {}
    for group in _groups(node, inventory):
        found |= inventory.groups[group].vars
    return found | inventory.hostvars.get(node, {}) | dict.fromkeys(_NODE, node)


def _groups(node: str, inventory: Inventory) -> list[str]:
    """The groups that hold `node`, the farthest first."""
    found = [name for name, group in inventory.groups.items() if node in group.hosts and name != "all"]
    for name in found:  # grows while it is read
        parents = (each for each, group in inventory.groups.items() if name in group.children and each != "all")
        found += [each for each in parents if each not in found]
    return [*(["all"] if "all" in inventory.groups else []), *reversed(found)]

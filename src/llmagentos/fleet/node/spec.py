"""What the runner gets for a job: the node's own variables and an inventory in which only this host is reachable."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from llmagentos.api.jobs import Inventory, NodeJob
from llmagentos.core.errors import InvalidInput

_ELSEWHERE = "llmagentos_elsewhere"  # the connection plugin that refuses, with the reason


def runner_spec(job: NodeJob, *, home: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """`spec.json` of `job`; `variables` are this node's own, which an inventory may override.

    Raises `InvalidInput` for paths that lead out of the bundle.
    """
    return {
        "playbook": _relative(job.playbook),
        "limit": f"{job.host},localhost" if job.local else job.host,
        "home": home,
        "inventory": inventory(job.inventory, job.host, variables),
        "inventory_directory": None if job.inventory.directory is None else _relative(job.inventory.directory),
        "extra_vars": job.extra_vars,
        "check": job.check,
        "diff": job.diff,
        "tags": job.tags,
        "skip_tags": job.skip_tags,
        "verbosity": job.verbosity,
    }


def inventory(given: Inventory, host: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The inventory as Ansible's YAML inventories have it. Raises `InvalidInput` for groups that contain themselves."""
    names = {host, *given.hostvars, *(name for group in given.groups.values() for name in group.hosts)}
    hosts = {name: {**given.hostvars.get(name, {}), "ansible_connection": _ELSEWHERE} for name in sorted(names)}
    hosts[host]["ansible_connection"] = "local"
    top = given.groups.get("all")
    children: dict[str, Any] = {}
    for name, group in given.groups.items():
        if name in ("all", "ungrouped"):
            continue
        children[name] = {
            "hosts": {each: {} for each in group.hosts},
            "children": {child: {} for child in group.children},
            "vars": group.vars,
        }
    own = {"ansible_python_interpreter": sys.executable, **variables}  # the runner's too
    return {"all": {"hosts": hosts, "children": children, "vars": {**own, **(top.vars if top else {})}}}


def _relative(path: str) -> str:
    if (pure := PurePosixPath(path)).is_absolute() or ".." in pure.parts:
        raise InvalidInput(f"{path!r} leads out of the bundle")
    return path

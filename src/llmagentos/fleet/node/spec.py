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
    span = job.inventory.span
    limit: str | None = f"{job.host},localhost" if job.local else job.host
    return {
        "playbook": _relative(job.playbook),
        "limit": limit if span is None else span.limit,
        "home": home,
        "inventory": inventory(job.inventory, job.host, variables),
        "inventory_directory": None if job.inventory.directory is None else _relative(job.inventory.directory),
        "extra_vars": {name: _value(value, name in job.literal) for name, value in job.extra_vars.items()},
        "check": job.check,
        "diff": job.diff,
        "tags": job.tags,
        "skip_tags": job.skip_tags,
        "verbosity": job.verbosity,
        "start_at_task": job.start_at_task,
        "lockstep": None
        if span is None
        else {
            "me": job.host,
            "lead": span.lead,
            "hosts": span.nodes,
            "forks": span.forks,
            "files": span.files,
            "reasons": span.reasons,
        },
    }


def foreign_spec(job: NodeJob) -> dict[str, Any]:
    """`spec.json` of a job that is no playbook. Raises `InvalidInput` for a path that leads out of the bundle."""
    return {
        "kind": job.kind,
        "path": _relative(job.playbook),
        "host": job.host,
        "variables": job.extra_vars,
        "check": job.check,
        "diff": job.diff,
        "tags": job.tags,
        "skip_tags": job.skip_tags,
        "verbosity": job.verbosity,
    }


def inventory(given: Inventory, host: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The inventory as Ansible's YAML inventories have it. Raises `InvalidInput` for groups that contain themselves."""
    top = given.groups.get("all")
    groups = [*([top] if top else []), *given.groups.values()]
    names = dict.fromkeys([*(name for group in groups for name in group.hosts), *given.hostvars, host])
    hosts = {name: {**given.hostvars.get(name, {}), "ansible_connection": _ELSEWHERE} for name in names}
    hosts[host]["ansible_connection"] = "local"
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


def _value(value: Any, literal: bool) -> Any:
    """A variable as ansible-core's JSON has it; in what is `literal` it looks for no templates."""
    if not literal:
        return value
    if isinstance(value, str):
        return {"__ansible_unsafe": value}
    if isinstance(value, list):
        return [_value(each, literal) for each in value]
    if isinstance(value, dict):
        return {name: _value(each, literal) for name, each in value.items()}
    return value


def _relative(path: str) -> str:
    if (pure := PurePosixPath(path)).is_absolute() or ".." in pure.parts:
        raise InvalidInput(f"{path!r} leads out of the bundle")
    return path

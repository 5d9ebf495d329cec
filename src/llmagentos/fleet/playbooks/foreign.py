"""Puppet manifests and Salt states as far as they can be judged before they run: that they are there."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from llmagentos.api.jobs import JobSpec
from llmagentos.core.errors import InvalidInput

_OF_PLAYBOOKS = {
    "forks": "--forks",
    "lockstep": "--lockstep",
    "start_at_task": "--start-at-task",
}


def check(spec: JobSpec, files: Mapping[str, bytes]) -> None:
    """Raise `InvalidInput` for what cannot be run, or not so."""
    path = posixpath.normpath(spec.playbook)
    if spec.kind == "puppet" and path not in files:
        raise InvalidInput(f"there is no manifest {spec.playbook!r} in the bundle")
    if spec.kind == "salt" and not (path in files or _has_states(path, files)):
        raise InvalidInput(f"there are no states in {spec.playbook!r}", hint="files that end in .sls")
    options = _OF_PLAYBOOKS | ({"tags": "--tags", "skip_tags": "--skip-tags"} if spec.kind == "salt" else {})
    for name, option in options.items():
        if getattr(spec, name):
            raise InvalidInput(f"{option} is for playbooks; {spec.kind} has nothing like it")
    if spec.kind == "puppet":
        for name, value in spec.extra_vars.items():
            if not isinstance(value, str | int | float | bool):
                raise InvalidInput(f"-e {name}: Puppet gets it as a fact, which has to be text or a number")


def _has_states(path: str, files: Mapping[str, bytes]) -> bool:
    prefix = "" if path == "." else f"{path}/"
    return any(name.startswith(prefix) and name.endswith(".sls") for name in files)

# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""Tasks of ansible-core's own actions are executed in the runner itself instead of in a fork for each task.

ansible-core forks for every task, so that hosts go on side by side and nothing that a task does to objects of
the process is left behind. A node has one host, and what its own actions touch is known: the task, which is
finalised, its parents, the host and the variables, so copies are handed in. Whatever may run foreign code in
this process, or needs a process of its own, is forked as ever: `eligibility.TO_FORK` says when.
"""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible import constants
from ansible._internal import _task
from ansible.executor.process import worker
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins import loader
from ansible.utils.display import Display

from llmagentos_ansible.eligibility import SWITCH, Circumstances, reason_to_fork

# Actions that have a plugin of ansible-core's; all others of ansible.builtin without one go to the module as they are.
_KNOWN = frozenset({"assert", "command", "copy", "debug", "fail", "set_fact", "shell", "template"})
_FOREIGN = ("action", "become", "connection", "filter", "lookup", "shell", "test")
_OF_A_COLLECTION = re.compile(r"ansible_collections\.(?!ansible\.builtin\.)\w+\.\w+\.plugins\.(filter|lookup|test)\.")
_SOON_S = 0.0001
_seen: dict[str, tuple[int, bool]] = {}
"""By directory of plugins when it changed last and whether there are any."""
_display = Display()


def install() -> Callable[[Any], None]:
    """From now on, for the workers of this process. Returns what starts one in a process of its own."""
    start, pause = worker.WorkerProcess.start, constants.DEFAULT_INTERNAL_POLL_INTERVAL

    def begin(process: Any) -> None:
        reason = reason_to_fork(_circumstances(process._task, process._task_vars))
        # One task at a time: the result of one that is executed here is there before the strategy looks for it.
        constants.DEFAULT_INTERNAL_POLL_INTERVAL = pause if reason is not None else _SOON_S
        if reason is None:
            execute(process)
        else:
            _display.vvv(f"task in a process of its own: {reason}", host=process._host.name)
            start(process)

    worker.WorkerProcess.start = begin
    return start  # type: ignore[no-any-return]


def execute(process: Any) -> None:
    """What the worker's process does, with copies of what it would have had for itself."""
    process._task = _with_parents(process._task)
    process._host = copy.copy(process._host)
    process._task_vars = variables = dict(process._task_vars)
    if isinstance(facts := variables.get("ansible_facts"), dict):
        variables["ansible_facts"] = dict(facts)
    with _context(process):
        process._run()
    worker.current_worker = None


def _with_parents(task: Any) -> Any:
    """A copy of the task and of the blocks that it is in, without the other tasks in these."""
    found = task.copy(exclude_parent=True, exclude_tasks=True)
    found._parent = task._parent.copy(exclude_tasks=True) if task._parent else None
    return found


def _context(process: Any) -> Any:
    if hasattr(_task.TaskContext, "create"):  # from ansible-core 2.20 on
        return _task.TaskContext.create(task=process._task, task_vars=process._task_vars, host_name=process._host.name)
    return _task.TaskContext(process._task)


def _circumstances(task: Any, variables: Mapping[str, Any]) -> Circumstances:
    return Circumstances(
        allowed=boolean(variables.get(SWITCH, True), strict=False),
        known=_known(task),
        own_plugins=_only_own_plugins(),
        connection=variables.get("ansible_connection", task.connection),
        elsewhere=bool(task.delegate_to),
        limited=bool(task.async_val or task.timeout),
        debugged=bool(task.debugger or constants.ENABLE_TASK_DEBUGGER),
    )


def _known(task: Any) -> bool:
    namespace, _, name = str(task.resolved_action or "").rpartition(".")
    if namespace not in ("ansible.builtin", "ansible.legacy"):
        return False
    return name in _KNOWN or not loader.action_loader.has_plugin(name)


def _only_own_plugins() -> bool:
    """Whether no plugins but ansible-core's can come in: a playbook's, a role's, this machine's, a collection's."""
    for kind in _FOREIGN:
        for entry in getattr(loader, f"{kind}_loader")._get_paths_with_context():
            if not entry.internal and "llmagentos" not in entry.path and _has_plugins(entry.path):
                return False
    # What of a collection is used in a template shows only when it was: from then on it is not used here again.
    return not _of_a_collection(len(sys.modules))


@lru_cache(maxsize=1)
def _of_a_collection(_modules: int) -> bool:
    """Asked before each task: looked at again when more modules were imported."""
    return any(_OF_A_COLLECTION.match(name) for name in sys.modules)


def _has_plugins(directory: str) -> bool:
    """Asked before each task: a directory is read again only when it has changed."""
    try:
        changed = os.stat(directory).st_mtime_ns  # noqa: PTH116 - a Path for each would cost more than the call
    except OSError:
        return False
    known = _seen.get(directory)
    if known is None or known[0] != changed:
        _seen[directory] = known = (changed, any(Path(directory).glob("*.py")))
    return known[1]

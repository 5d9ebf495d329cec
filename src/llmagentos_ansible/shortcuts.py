# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""Small things that ansible-core has a shell do, three of them for one copied file, done here instead; and the
environment that a task's programs get.

Only for the local connection as the same user, and only what is certain: whatever fails or is unusual
goes ansible-core's own way, which then says what is wrong.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from ansible.plugins import action as actions

from llmagentos_ansible.execution import becomes, clean, connection

_PLAIN = re.compile(r"/[A-Za-z0-9_./+@%,=:-]*")  # an absolute path in which a shell finds nothing to expand
_OWNER_ALL = 0o700


def install() -> None:
    """From now on, for all actions of this process and its forks."""
    base = actions.ActionBase
    base._make_tmp_path = _or_else(base._make_tmp_path, _make)
    base._remove_tmp_path = _or_else(base._remove_tmp_path, _remove)
    base._remote_chmod = _or_else(base._remote_chmod, _chmod)
    base._low_level_execute_command = _with_clean_environment(base._low_level_execute_command)


def _with_clean_environment(own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def executed(action: Any, *args: Any, **options: Any) -> Any:
        if action._connection.transport == "local":
            type(action._connection).exec_command.__globals__["subprocess"] = _SUBPROCESS
        return own(action, *args, **options)

    return executed


class _Subprocess:
    """`subprocess`, but for the environment of what is started."""

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: Any, **options: Any) -> Any:
        return subprocess.Popen(command, **options, env=clean(os.environ))


_SUBPROCESS = _Subprocess()


class _UnusualError(Exception):
    """Not for a short cut."""


def _or_else(own: Callable[..., Any], short: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def chosen(action: Any, *args: Any, **options: Any) -> Any:
        if connection(action) == "local" and becomes(action) is None:
            try:
                return short(action, *args, **options)
            except (OSError, _UnusualError):
                return own(action, *args, **options)
        return own(action, *args, **options)

    return chosen


def _make(action: Any, remote_user: Any = None) -> str:
    parent = action.get_shell_option("remote_tmp", default="~/.ansible/tmp")
    if not _PLAIN.fullmatch(parent) or action._is_become_unprivileged():
        raise _UnusualError
    path = action._connection._shell.join_path(parent, action._connection._shell._generate_temp_dir_name())
    for missing in [each for each in (*reversed(Path(parent).parents), Path(parent)) if not each.exists()]:
        missing.mkdir(mode=_OWNER_ALL, exist_ok=True)
    Path(path).mkdir(mode=_OWNER_ALL)
    action._cleanup_remote_tmp = True
    action._connection._shell.tmpdir = path
    return str(path)


def _remove(action: Any, tmp_path: Any, force: bool = False) -> None:
    shell = action._connection._shell
    path = shell.tmpdir if tmp_path is None else tmp_path
    if not path or not (force or action._should_remove_tmp_path(path)):
        return
    if not _PLAIN.fullmatch(path):
        raise _UnusualError
    if os.path.lexists(path):
        shutil.rmtree(path)
    shell.tmpdir = None


def _chmod(action: Any, paths: Any, mode: str, sudoable: bool = False) -> dict[str, Any]:
    if mode != "u+rwx" or sudoable or not all(_PLAIN.fullmatch(path) for path in paths):
        raise _UnusualError
    for path in map(Path, paths):
        path.chmod(path.stat().st_mode & 0o7777 | _OWNER_ALL)
    return {"rc": 0, "stdout": "", "stdout_lines": [], "stderr": "", "stderr_lines": []}

# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""Tasks that become another user, who may neither run our interpreter nor write below our directories."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SYSTEM = "/usr/bin/python3"
INTERPRETER = "ansible_python_interpreter"
_OPTION, _OWN, _DEFAULT = "remote_tmp", "ANSIBLE_REMOTE_TEMP", "~/.ansible/tmp"
"""The option of the shell that the runner set by the environment for itself."""


def variables(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """`given` with the system's interpreter where ours was meant and is closed to others."""
    if given.get(INTERPRETER) != sys.executable or open_to_others(Path(sys.executable)) or not Path(SYSTEM).exists():
        return given
    return {**given, INTERPRETER: SYSTEM}


def open_to_others(program: Path) -> bool:
    """Whether any user may execute it, and look at every directory on its way and on that of where it leads."""
    ways = {program, program.resolve()}
    return all(part.stat().st_mode & stat.S_IXOTH for way in ways for part in (way, *way.parents))


@contextmanager
def directory(action: Any) -> Iterator[None]:
    """Within it the task's temporary files lie where ansible-core has them: at that user's."""
    shell = action._connection._shell
    before = shell.get_option(_OPTION)
    if before == os.environ.get(_OWN):
        shell.set_option(_OPTION, _DEFAULT)
    try:
        yield
    finally:
        shell.set_option(_OPTION, before)

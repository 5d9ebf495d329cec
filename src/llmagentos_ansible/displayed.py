# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""What ansible-core shows beside plays, tasks and results: warnings, errors, and with `-v` what it does."""

from __future__ import annotations

from typing import Any

from ansible.utils.display import Display

from llmagentos_ansible.events import Log

VERBOSE_BYTES = 1024 * 1024
"""Of lines that only `-v` shows; further ones are only in output.log."""
_LEVELS = {"[WARNING]: ": "warning", "[DEPRECATION WARNING]: ": "deprecated", "[ERROR]: ": "error"}


def install(log: Log) -> None:
    """From now on the job's log has it too."""
    own = Display.display
    left = VERBOSE_BYTES

    def display(shown: Any, msg: str, *rest: Any, log_only: bool = False, **more: Any) -> None:
        nonlocal left
        own(shown, msg, *rest, log_only=log_only, **more)
        if log_only:
            return
        for prefix, level in _LEVELS.items():
            if msg.startswith(prefix):
                log.say(level, msg.removeprefix(prefix).strip())
                return
        if (text := msg.strip()) and len(text) <= left:
            left -= len(text)
            log.say("info", text)

    Display.display = display

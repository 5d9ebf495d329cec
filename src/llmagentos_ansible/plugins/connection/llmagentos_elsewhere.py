# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""The connection of every host that is another node: nothing can be run there from here."""

from __future__ import annotations

from typing import Any, NoReturn

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
    name: llmagentos_elsewhere
    short_description: another node
    description:
      - Refuses to run anything. Each node works its own queue, so a task runs on the node that it is for.
"""


class Connection(ConnectionBase):  # type: ignore[misc]
    """Refuses everything, with the reason."""

    transport = "llmagentos_elsewhere"
    has_pipelining = False

    def _connect(self) -> NoReturn:
        host = self._play_context.remote_addr
        raise AnsibleConnectionFailure(
            f"{host!r} is another node: each node runs its own tasks, so a task cannot be delegated to it. "
            f"Write a play for it, `hosts: {host}`"
        )

    def exec_command(self, *_: Any, **__: Any) -> NoReturn:
        self._connect()

    def put_file(self, *_: Any, **__: Any) -> NoReturn:
        self._connect()

    def fetch_file(self, *_: Any, **__: Any) -> NoReturn:
        self._connect()

    def close(self) -> None:
        """There never is a connection."""

# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""Hosts and groups that come to be while a playbook runs, when it spans nodes, for ansible-core 2.21.

There an action adds them at once, by a call into the runner's main process. Here it tells all nodes, and each adds
them in the one order of all shares: so that a new group has the same hosts in the same order everywhere. Earlier
releases add them when they process the result, which is in that order anyway.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from llmagentos_ansible import wire


class Told:
    """Stands in for ansible-core's call: in the fork that executes the task, on its copy of the inventory."""

    def __init__(self, tell: Any) -> None:
        self._tell = tell

    def add_host(self, info: Any) -> bool:
        """Tell it; whether that changes anything."""
        self._tell({"what": "host", "info": wire.encode(dataclasses.asdict(info))})
        return bool(_inventory().add_dynamic_host(info))

    def add_group(self, host_name: str, info: Any) -> bool:
        """Tell it; whether that changes anything."""
        self._tell({"what": "group", "of": host_name, "info": wire.encode(dataclasses.asdict(info))})
        return bool(_inventory().add_dynamic_group(host_name, info))


def install(tell: Any) -> None:
    """From now on. `tell` shares what is told of the task at hand."""
    if wire.UNIFIED:
        from ansible._internal import _task

        _task.TaskContext.inventory_rpc_client = property(lambda _: Told(tell))


def heed(share: Mapping[str, Any]) -> None:
    """Add what was told, in the runner's main process."""
    from ansible._internal import _task
    from ansible._internal._plugins import _strategy

    info = wire.decode(str(share["info"]))
    if share["what"] == "group":
        _inventory().add_dynamic_group(str(share["of"]), _task.AddGroup(**info))
        return
    host = _task.AddHost(**info)
    cache = _strategy.StrategyContext.current().strategy._hosts_cache_all
    if _inventory().add_dynamic_host(host) and host.host_name not in cache:
        cache.append(host.host_name)


def _inventory() -> Any:
    from ansible._internal._plugins import _strategy

    return _strategy.StrategyContext.current().tqm._inventory

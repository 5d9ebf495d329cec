# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""`delegate_to` another node of the job: that node executes the task, from its own copy of the playbook.

The node whose task it is decides all but the action itself: conditions, loops, attempts. It asks for one item at
a time, by number. The node that is asked runs the same task up to that item, with variables that are the same on
all nodes, and answers with what the action returned. So nobody can have another node execute anything that is not
in the playbook.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.executor import task_executor
from ansible.executor.process import worker

from llmagentos_ansible import wire
from llmagentos_ansible.exchange import Heard, Peers
from llmagentos_ansible.lockstep import Lockstep

# Actions that do nothing on the host, so that they need not go there.
_NOWHERE = frozenset(
    {"add_host", "assert", "debug", "fail", "group_by", "include_vars", "pause", "set_fact", "set_stats"}
    | {"validate_argument_spec"}
)


def install(lockstep: Lockstep) -> None:
    """From now on, for all tasks of this process and its forks."""
    executor = task_executor.TaskExecutor
    execute, handler = executor._execute, executor._get_action_handler_with_module_context

    def _execute(found: Any, *args: Any, **named: Any) -> Any:
        process = worker.current_worker
        process.lockstep_item = getattr(process, "lockstep_item", -1) + 1
        if (heard := getattr(process, "lockstep_asked", None)) is None:
            return execute(found, *args, **named)
        if (assistant := getattr(process, "lockstep_assistant", None)) is None:
            assistant = process.lockstep_assistant = Assistant(lockstep, process, heard)
        return assistant.item(found, lambda: execute(found, *args, **named))

    def _get_action_handler(found: Any, *args: Any, **named: Any) -> Any:
        plugin, context = handler(found, *args, **named)
        process = worker.current_worker
        if (assistant := getattr(process, "lockstep_assistant", None)) is not None:
            plugin.run = assistant.answering(plugin.run)
        elif (node := _elsewhere(lockstep, found)) is not None:
            plugin.run = lambda *_, **__: _ask(lockstep, process, node)
        return plugin, context

    executor._execute = _execute
    executor._get_action_handler_with_module_context = _get_action_handler


def _elsewhere(lockstep: Lockstep, executor: Any) -> str | None:
    """The other node that the action is delegated to."""
    task = executor._task
    if not task.delegate_to or str(task.resolved_action or task.action).rpartition(".")[2] in _NOWHERE:
        return None
    owner = lockstep.members.owner(task.delegate_to, {})
    return owner if owner != lockstep.members.me else None


# --- asking ---------------------------------------------------------------------------------------


def _ask(lockstep: Lockstep, process: Any, node: str) -> dict[str, Any]:
    """What the action returns on `node`. Raises `AnsibleConnectionFailure` when that node is gone."""
    if node in lockstep.gone:
        raise AnsibleConnectionFailure(f"node {node!r} is gone: {lockstep.gone[node]}")
    if (peers := getattr(process, "lockstep_peers", None)) is None:
        peers = process.lockstep_peers = Peers(lockstep.peers_path, lockstep.offset)
    process.lockstep_attempt = attempt = getattr(process, "lockstep_attempt", 0) + 1
    host, number = process.lockstep_key
    asked = {"host": host, "n": number, "item": process.lockstep_item, "attempt": attempt}
    lockstep.shares.tell({"kind": "ask", "to": node, **asked})
    while True:
        for heard in peers.wait():
            if heard.node != node:
                continue
            if not heard.share:
                raise AnsibleConnectionFailure(f"node {node!r} is gone: {heard.why}")
            if heard.share["kind"] == "answer" and all(heard.share[name] == asked[name] for name in asked):
                return _returned(heard.share)


def _returned(share: dict[str, Any]) -> dict[str, Any]:
    told = wire.decode(str(share["result"]))
    if "away" in told:
        raise AnsibleConnectionFailure(str(told["away"]))
    if "error" in told:
        raise AnsibleError(str(told["error"]))
    return wire.as_of_module(dict(told["result"])) if told["of_module"] else dict(told["result"])


# --- answering ------------------------------------------------------------------------------------


class Assistant:
    """Executes what a task of another node delegates to this one, in a fork."""

    def __init__(self, lockstep: Lockstep, process: Any, first: Heard) -> None:
        self._lockstep = lockstep
        self._process = process
        self._owner = first.node
        self._peers = Peers(lockstep.peers_path, first.end)
        self._asked: deque[dict[str, Any]] = deque([first.share])
        self._over = False
        self._answered = False

    def item(self, executor: Any, execute: Callable[[], Any]) -> Any:
        """`TaskExecutor._execute` for the next item: executed as often as it is asked for, else passed over."""
        number = self._process.lockstep_item
        result = None
        while (ask := self._head()) is not None and ask["item"] <= number:
            if ask["item"] < number or ask["to"] != self._lockstep.members.me:
                self._asked.popleft()
                continue
            executor._task.retries, executor._task.until, executor._task.async_val = 0, [], 0
            self._answered = False
            result = execute()
            if not self._answered:
                me = self._lockstep.members.me
                self._answer({"error": f"node {me!r} did not come to execute it: {_why(result)}"})
        return _passed_over() if result is None else result

    def answering(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """An action's `run` that also answers."""

        def answering(*args: Any, **named: Any) -> Any:
            try:
                result = run(*args, **named)
            except AnsibleConnectionFailure as error:
                self._answer({"away": str(error)})
                raise
            except Exception as error:
                self._answer({"result": _of_exception(error), "of_module": False})
                raise
            self._answer({"result": result, "of_module": wire.of_module(result)})
            return result

        return answering

    def _answer(self, told: dict[str, Any]) -> None:
        ask = self._asked.popleft()
        self._answered = True
        share = {"kind": "answer", **{name: ask[name] for name in ("host", "n", "item", "attempt")}}
        try:
            self._lockstep.shares.tell(share | {"result": wire.encode(told)})
        except (TypeError, ValueError) as error:
            self._lockstep.shares.tell(share | {"result": wire.encode({"error": str(error)})})

    def _head(self) -> dict[str, Any] | None:
        """What is asked for now; waits for it. None once the task is over."""
        key = self._process.lockstep_key
        while not self._asked and not self._over:
            for heard in self._peers.wait():
                if heard.node != self._owner:
                    continue
                share = heard.share
                if not share or (share["kind"] == "result" and (share["host"], share["n"]) == key):
                    self._over = True
                elif share["kind"] == "ask" and (share["host"], share["n"]) == key:
                    self._asked.append(share)
        return self._asked[0] if self._asked else None


def _passed_over() -> Any:
    if wire.UNIFIED:
        from ansible._internal._task import UnifiedTaskResult

        with UnifiedTaskResult.create_and_record() as result:
            result.set_skipped("asked of another node")
        return result
    return {"changed": False, "skipped": True}


def _why(result: Any) -> str:
    message = result.msg if wire.UNIFIED else result.get("msg")
    return str(message or "its conditions are not met there")


def _of_exception(error: Exception) -> dict[str, Any]:
    if wire.UNIFIED:
        from ansible._internal._task import UnifiedTaskResult

        made = UnifiedTaskResult._create_from_exception(error, accept_result_contribution=True, source_is_module=False)
        return dict(made.as_result_dict())
    from ansible._internal._errors import _error_utils

    return dict(_error_utils.result_dict_from_exception(error, accept_result_contribution=True))

# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""Writes what ansible-core reports to the run's event log. Prints nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.executor.task_result import CallbackTaskResult
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback import CallbackBase

from llmagentos.api.bounded import bounded
from llmagentos_ansible import events

DOCUMENTATION = """
    name: llmagentos_events
    type: stdout
    short_description: events of a job
    description:
      - Appends what happens to the event log of the job that is being run.
"""

_DIFF_BYTES = 32 * 1024
# Told elsewhere in the event, doubled in the result, or only of use inside ansible-core.
_NOT_SHOWN = ("diff", "invocation", "exception", "warnings", "deprecations", "ansible_facts", "results")


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """One event per play, task, result and item."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "llmagentos_events"

    def __init__(self) -> None:
        super().__init__()
        self._log = events.current()
        self._begun = time.monotonic()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._log.append("play_started", name=events.cut(play.get_name().strip()))

    def v2_playbook_on_no_hosts_matched(self) -> None:
        self._log.say("info", "skipping: no hosts matched")

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        self._log.say("info", "NO MORE HOSTS LEFT")

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._task(task, handler=False)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._task(task, handler=True)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        hosts = ", ".join(host.name for host in included_file._hosts if self._log.mine(host.name))
        if hosts:
            label = self._get_item_label(included_file._vars)
            item = f" => (item={label})" if label else ""
            self._log.say("info", f"included: {_inside(included_file._filename)} for {hosts}{item}")

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        if not isinstance(result.task, TaskInclude):
            self._result(result, _changed(result))

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        self._place(result)
        self._result(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result: CallbackTaskResult) -> None:
        self._result(result, "skipped")

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        self._place(result)
        self._result(result, "unreachable")
        if result.task.ignore_unreachable and self._log.mine(result.host.get_name()):
            self._log.say("info", "...ignoring")

    def v2_runner_item_on_ok(self, result: CallbackTaskResult) -> None:
        if not isinstance(result.task, TaskInclude):
            self._result(result, _changed(result), item=True)

    def v2_runner_item_on_failed(self, result: CallbackTaskResult) -> None:
        self._result(result, "failed", item=True)

    def v2_runner_item_on_skipped(self, result: CallbackTaskResult) -> None:
        self._result(result, "skipped", item=True)

    def v2_runner_retry(self, result: CallbackTaskResult) -> None:
        if not self._log.mine(result.host.get_name()):
            return
        left = int(result.result.get("retries", 0)) - int(result.result.get("attempts", 0))
        name = result.task.get_name().strip()
        self._log.say("info", f"FAILED - RETRYING: [{self.host_label(result)}]: {name} ({left} retries left).")

    def v2_runner_on_async_poll(self, result: CallbackTaskResult) -> None:
        found = result.result
        self._async(result, "POLL", f" started={found.get('started')} finished={found.get('finished')}")

    def v2_runner_on_async_ok(self, result: CallbackTaskResult) -> None:
        self._async(result, "OK")

    def v2_runner_on_async_failed(self, result: CallbackTaskResult) -> None:
        self._async(result, "FAILED")

    def _async(self, result: CallbackTaskResult, what: str, more: str = "") -> None:
        """Of a task with `async`, which `poll` waits for: each look at it, and its end."""
        if self._log.mine(host := result.host.get_name()):
            found = result.result
            jid = found.get("ansible_job_id") or (found.get("async_result") or {}).get("ansible_job_id")
            self._log.say("info", f"ASYNC {what} on {host}: jid={jid}{more}")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        for host in filter(self._log.mine, sorted(stats.processed)):
            found = stats.summarize(host)
            found["failed"] = found.pop("failures")
            self._log.recap[host] = found
        self._log.append("recap", hosts=self._log.recap)

    def _task(self, task: Any, *, handler: bool) -> None:
        self._begun = time.monotonic()
        name = events.cut(task.get_name().strip())
        self._log.append("task_started", name=name, action=str(task.action), handler=handler)

    def _result(self, result: CallbackTaskResult, status: str, *, item: bool = False) -> None:
        if not self._log.mine(result.host.get_name()):
            return
        found = dict(result.result)
        self._warnings(found)
        members: dict[str, Any] = {
            "host": result.host.get_name(),
            "task": events.cut(result.task.get_name().strip()),
            "action": str(result.task.action),
            "status": status,
            "result": bounded(_shown(found, str(result.task.action))),
            "diff": _differences(found),
            "duration_s": round(time.monotonic() - self._begun, 4),
        }
        if item:
            members["is_item"] = True
            members["item"] = bounded({"": self._get_item_label(found)}, 4096)[""]
        if result.task.delegate_to and result.task.delegate_to != members["host"]:
            members["delegated_to"] = events.cut(str(result.task.delegate_to), 256)
        self._log.append("task_result", **members)
        if item:
            self._begun = time.monotonic()

    def _place(self, result: CallbackTaskResult) -> None:
        """Where the task that failed stands."""
        if (path := result.task.get_path()) and self._log.mine(result.host.get_name()):
            self._log.say("info", f"Origin: {_inside(path)}")

    def _warnings(self, found: dict[str, Any]) -> None:
        for text in found.get("warnings") or ():
            self._log.say("warning", str(text))
        for entry in found.get("deprecations") or ():
            self._log.say("deprecated", str(entry.get("msg", entry) if isinstance(entry, dict) else entry))


def _inside(path: str) -> str:
    """The path as whoever wrote the playbook knows it: relative to its directory, which this process runs in."""
    return str(path).removeprefix(f"{Path.cwd()}/")


def _changed(result: CallbackTaskResult) -> str:
    return "changed" if result.result.get("changed") else "ok"


def _shown(found: dict[str, Any], action: str) -> dict[str, Any]:
    """The result as people want to see it; `debug` shows its text or variable alone."""
    shown = {k: v for k, v in found.items() if k not in _NOT_SHOWN and not k.startswith("_ansible_")}
    if action in constants._ACTION_SET_FACT and "ansible_facts" in found:
        shown["ansible_facts"] = found["ansible_facts"]
    if action in constants._ACTION_DEBUG:
        hidden = {"changed", "failed", "skipped", "skip_reason", "ansible_loop_var", "ansible_index_var"}
        return {"msg": shown["msg"]} if "msg" in shown else {k: v for k, v in shown.items() if k not in hidden}
    for stream in ("stdout", "stderr"):
        if stream in shown:
            shown.pop(f"{stream}_lines", None)
    return shown


def _differences(found: dict[str, Any]) -> list[dict[str, str]]:
    if found.get("_ansible_no_log") or not found.get("changed"):
        return []
    given = found.get("diff") or []
    listed = given if isinstance(given, list) else [given]
    return [shown for diff in listed[:50] if isinstance(diff, dict) and (shown := _difference(diff))]


def _difference(diff: dict[str, Any]) -> dict[str, str]:
    for key, text in (
        ("src_binary", "diff skipped: the source is binary\n"),
        ("dst_binary", "diff skipped: the destination is binary\n"),
        ("src_larger", f"diff skipped: the source is over {diff.get('src_larger')} bytes\n"),
        ("dst_larger", f"diff skipped: the destination is over {diff.get('dst_larger')} bytes\n"),
    ):
        if key in diff:
            return {"prepared": text}
    shown = {key: _text(diff[key]) for key in ("before", "after", "prepared") if diff.get(key) is not None}
    if shown.get("before") == shown.get("after") and "prepared" not in shown:
        return {}
    shown |= {key: events.cut(str(diff[key]), 1024) for key in ("before_header", "after_header") if diff.get(key)}
    limited: dict[str, str] = bounded(shown, _DIFF_BYTES)
    return limited


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    import json

    return json.dumps(value, indent=4, sort_keys=True, ensure_ascii=False, default=str) + "\n"

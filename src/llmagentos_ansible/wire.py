# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""Results of tasks as text for the other nodes of a job, and back.

All tags of ansible-core's values are left out, above all the one that says "this text is a template of the
playbook": what another node says must never be evaluated here.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

from ansible._internal import _task
from ansible._internal._errors import _captured
from ansible.executor import task_result
from ansible.module_utils._internal import _datatag, _messages
from ansible.module_utils._internal._json import _profiles

UNIFIED = hasattr(_task, "UnifiedTaskResult")
"""From ansible-core 2.21 on a result is an object of many fields; before it was a mapping."""

# Of the task as it was finalised: what the strategy and callbacks look at afterwards. All else the node has itself.
_FIELDS = (
    "name",
    "action",
    "ignore_errors",
    "ignore_unreachable",
    "run_once",
    "delegate_to",
    "delegate_facts",
    "no_log",
    "diff",
    "check_mode",
)


class _Profile(_profiles._JSONSerializationProfile):  # type: ignore[misc]
    """Plain values, and ansible-core's own messages."""

    serialize_map: dict[type, Any] = {}  # noqa: RUF012 - as ansible-core declares it

    @classmethod
    def post_init(cls) -> None:
        cls.allowed_ansible_serializable_types = _profiles._common_module_response_types
        cls.serialize_map = {
            **cls._common_discard_tags,
            set: cls.serialize_as_list,
            tuple: cls.serialize_as_list,
            datetime.date: _datatag.AnsibleSerializableDate,
            datetime.time: _datatag.AnsibleSerializableTime,
            datetime.datetime: _datatag.AnsibleSerializableDateTime,
            _captured.CapturedErrorSummary: lambda found: _messages.ErrorSummary(event=found.event),
        }
        cls.handle_key = cls._handle_key_str_fallback

    @classmethod
    def last_chance(cls, o: Any) -> Any:
        return o.decode("utf-8", "surrogateescape") if isinstance(o, bytes) else super().last_chance(o)


class _Encoder(_profiles.AnsibleProfileJSONEncoder):  # type: ignore[misc]
    _profile = _Profile


class _Decoder(_profiles.AnsibleProfileJSONDecoder):  # type: ignore[misc]
    _profile = _Profile


def encode(value: Any) -> str:
    """Any value that a result may hold. Raises `TypeError`."""
    return json.dumps(value, cls=_Encoder)


def decode(text: str) -> Any:
    """What `encode` made. Raises `ValueError` or `TypeError` for anything else."""
    return json.loads(text, cls=_Decoder)


def encode_result(sent: tuple[Any, ...]) -> str:
    """What `FinalQueue.send_task_result` was given."""
    if UNIFIED:
        _, task, result = sent
        return encode({"fields": _fields(task.dump_attrs()), "result": _unified(result)})
    return encode({"fields": _fields(sent[0].task_fields), "result": sent[0]._return_data})


def _fields(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in _FIELDS if isinstance(found.get(name), str | bool | int | float | None)}


def wired(process: Any, text: str) -> Any:
    """The result that `encode_result` told of the task of `process`, as a strategy takes it from its queue."""
    told = decode(text)
    return _wire(process, _fields(told["fields"]), told["result"])


def unreachable(process: Any, why: str) -> Any:
    """The result for a host that cannot be reached any more."""
    if UNIFIED:
        return _wire(process, {}, {"_unreachable": True, "msg": why, "is_module": False})
    return _wire(process, {}, {"unreachable": True, "changed": False, "msg": why})


def _wire(process: Any, fields: dict[str, Any], result: dict[str, Any]) -> Any:
    common = {
        "host_name": process._host.name,
        "task_uuid": process._task._uuid,
        "task_fields": {**process._task.dump_attrs(), **fields},
    }
    if UNIFIED:
        return _task.WireTaskResult(**common, utr=_object(result))
    return task_result._WireTaskResult(**common, return_data=result)


def of_module(result: Mapping[str, Any]) -> bool:
    """Whether the error in an action's result is its module's."""
    found = result.get("exception")
    if not isinstance(found, _captured.CapturedErrorSummary):
        return False
    return found.is_module if UNIFIED else found.error_type is _captured.AnsibleModuleCapturedError


def as_of_module(result: dict[str, Any]) -> dict[str, Any]:
    """A result that was told, with its error as its module's again."""
    if isinstance(found := result.get("exception"), _messages.ErrorSummary):
        kind = _captured.CapturedErrorSummary
        if UNIFIED:
            of = {"is_module": True, "error_message": "Module failed.", "error_context": "target"}
        else:
            of = {"error_type": _captured.AnsibleModuleCapturedError}
        result["exception"] = kind(event=found.event, **of)
    return result


# --- ansible-core 2.21 ---------------------------------------------------------------------------


def _unified(result: Any) -> dict[str, Any]:
    """The fields that are not as a new result has them."""
    found: dict[str, Any] = {"is_module": bool(result.is_module)}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if field.name == "loop_results":
            if value is not None:
                found["loop_results"] = [_unified(each) for each in value]
        elif field.name == "pending_changes":
            found["pending_changes"] = {layer.name: kept for layer, kept in value.register_host_variables.items()}
        elif isinstance(value, _messages.ErrorSummary):
            found[field.name] = _messages.ErrorSummary(event=value.event)
        elif value is not None and field.name != "is_module":
            found[field.name] = dict(value) if isinstance(value, Mapping) else value
    return found


def _object(told: dict[str, Any]) -> Any:
    members = dict(told)
    if "loop_results" in members:
        members["loop_results"] = [_object(each) for each in members["loop_results"]]
    layers = {_task.VariableLayer[name]: kept for name, kept in members.pop("pending_changes", {}).items()}
    known = {field.name for field in dataclasses.fields(_task.UnifiedTaskResult)}
    result = _task.UnifiedTaskResult(**{name: value for name, value in members.items() if name in known})
    result.pending_changes = _task.PendingChanges(register_host_variables=layers)
    return result

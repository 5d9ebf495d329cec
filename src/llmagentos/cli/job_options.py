"""Options of `llmctl run` and of schedules that say when a job may run, read into the fields of its spec."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast, get_args

import click
import msgspec

from llmagentos.api.job_control import SHARE, Retried, Retries, Rollout
from llmagentos.api.jobs import JobSpec
from llmagentos.cli.span import Span
from llmagentos.core.errors import InvalidInput
from llmagentos.core.i18n import tr

F = TypeVar("F", bound=Callable[..., Any])
_SHARE = re.compile(SHARE)

_ROLLOUT = (
    click.option(
        "--batch",
        "batches",
        metavar="SIZES",
        help=tr("Roll out in batches, e.g. 1,25%,100%: the first is the canary, the last size is repeated."),
    ),
    click.option(
        "--max-failures",
        metavar="LIMIT",
        help=tr("Stop the rollout when more failed: 2, or 10% of those that ran (default: 0)."),
    ),
    click.option(
        "--gate",
        metavar="URL",
        help=tr("Health gate of a batch: has to answer 2xx for each node, e.g. http://{{ node }}:8080/health."),
    ),
    click.option("--gate-playbook", metavar="FILE", help=tr("Playbook that has to succeed on the nodes of a batch.")),
    click.option("--gate-timeout", type=Span(), help=tr("Patience with the gate of a batch (default: 60s).")),
    click.option("--pause", type=Span(), help=tr("Pause between batches, e.g. 30s.")),
    click.option("--rollback", metavar="FILE", help=tr("Playbook for the nodes that ran when a rollout is stopped.")),
)
_WHEN = (
    click.option("--priority", type=click.IntRange(-100, 100), help=tr("Higher ones come first on a node.")),
    click.option("--lock", metavar="NAME", help=tr("Of jobs with the same lock one runs at a time.")),
    click.option("--window", metavar="NAME", help=tr("Begin only in this maintenance window.")),
    click.option("--window-stop", is_flag=True, help=tr("Stop the job when its window closes.")),
    click.option("--approval", is_flag=True, help=tr("Somebody has to approve it first.")),
    click.option("--approver", "approvers", multiple=True, help=tr("Who may approve: operator:ann, operator:*.")),
    click.option("--total-timeout", type=Span(), help=tr("Stop the job everywhere after this, e.g. 2h.")),
    click.option("--retries", type=click.IntRange(1, 10), help=tr("Further attempts on a node where it failed.")),
    click.option(
        "--retry-on",
        metavar="STATES",
        help=tr("What is tried again: failed, unreachable, interrupted (default: failed,unreachable)."),
    ),
    click.option("--backoff", type=Span(), help=tr("Before the second attempt; then twice as long each time.")),
)
_KEY = click.option("--idempotency-key", metavar="KEY", help=tr("Asked again with the same key it is the same job."))


def control_options(command: F) -> F:
    """All of them; the command gets the fields of `JobSpec` that were asked for among its keyword arguments."""
    return _collected(command, (*_WHEN, _KEY, *_ROLLOUT))


def scheduled_options(command: F) -> F:
    """Those that a scheduled job may have."""
    return _collected(command, (*_WHEN, *_ROLLOUT))


def typed_options(command: F) -> F:
    """Those that a scheduled job may have; the command gets them as they were typed, for `changed`."""
    for option in reversed((*_WHEN, *_ROLLOUT)):
        command = option(command)
    return command


def _collected(command: F, options: Iterable[Callable[[F], F]]) -> F:
    @functools.wraps(command)
    def collected(*arguments: Any, **given: Any) -> Any:
        mine = {name: given.pop(name) for name in _NAMES if name in given}
        return command(*arguments, **given, **control(**mine))

    found = cast(F, collected)
    for option in reversed(list(options)):
        found = option(found)
    return found


_NAMES = (
    "batches",
    "max_failures",
    "gate",
    "gate_playbook",
    "gate_timeout",
    "pause",
    "rollback",
    "priority",
    "lock",
    "window",
    "window_stop",
    "approval",
    "approvers",
    "total_timeout",
    "retries",
    "retry_on",
    "backoff",
    "idempotency_key",
)


def control(
    *,
    priority: int | None = None,
    lock: str | None = None,
    window: str | None = None,
    window_stop: bool = False,
    approval: bool = False,
    approvers: tuple[str, ...] = (),
    total_timeout: float | None = None,
    idempotency_key: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Fields of `JobSpec`; only those that were asked for. Raises `InvalidInput`."""
    if window_stop and window is None:
        raise InvalidInput(tr("--window-stop needs --window"))
    if approvers and not approval:
        raise InvalidInput(tr("--approver needs --approval"))
    found = {
        "priority": priority,
        "lock": lock,
        "window": window,
        "window_end": "stop" if window_stop else None,
        "approval": "required" if approval else None,
        "approvers": list(approvers) or None,
        "total_timeout_s": total_timeout,
        "idempotency_key": idempotency_key,
        "retries": _retries(more.pop("retries", None), more.pop("retry_on", None), more.pop("backoff", None)),
        "rollout": _rollout(**more),
    }
    asked = {name: value for name, value in found.items() if value is not None}
    fields = {"bundle": "0" * 64, "playbook": "x"} | {name: msgspec.to_builtins(value) for name, value in asked.items()}
    _converted(fields, JobSpec)
    return asked


_WITH = {
    "window": ("window_stop",),
    "approval": ("approvers",),
    "retries": ("retry_on", "backoff"),
    "batches": ("max_failures", "gate", "gate_playbook", "gate_timeout", "pause", "rollback"),
}
"""What goes with an option that is taken back."""


def changed(spec: JobSpec, typed: Mapping[str, Any], unset: Iterable[str]) -> dict[str, Any]:
    """The fields of `JobSpec` that these options are about: as in `spec`, but for what was typed and what is `unset`.

    An option that needs another one, like --gate needs --batch, finds that of `spec`. Raises `InvalidInput`.
    """
    gone = {name for each in unset for name in (each, *_WITH.get(each, ()))}
    before = {name: value for name, value in as_typed(spec).items() if name not in gone}
    found = control(**before | {name: value for name, value in typed.items() if was_typed(value)})
    plain = JobSpec(spec.bundle, spec.playbook)
    return {name: found.get(name, getattr(plain, name)) for name in _FIELDS}


def was_typed(value: object) -> bool:
    """Whether this is what click hands over for an option that somebody wrote."""
    return value is not None and value is not False and value != ()


_FIELDS = (
    "priority",
    "lock",
    "window",
    "window_end",
    "approval",
    "approvers",
    "total_timeout_s",
    "retries",
    "rollout",
)


def as_typed(spec: JobSpec) -> dict[str, Any]:
    """The options that would make these fields of `spec`."""
    found: dict[str, Any] = {
        "priority": spec.priority,
        "lock": spec.lock,
        "window": spec.window,
        "window_stop": spec.window_end == "stop",
        "approval": spec.approval is not None,
        "approvers": tuple(spec.approvers),
        "total_timeout": spec.total_timeout_s,
    }
    if (again := spec.retries) is not None:
        found |= {"retries": again.max, "retry_on": ",".join(again.on), "backoff": again.backoff_s}
    if (out := spec.rollout) is not None:
        found |= {
            "batches": ",".join(out.batches),
            "max_failures": out.max_failures,
            "gate": out.gate,
            "gate_playbook": out.gate_playbook,
            "gate_timeout": out.gate_timeout_s,
            "pause": out.pause_s,
            "rollback": out.rollback,
        }
    return found


def _retries(most: int | None, on: str | None, backoff: float | None) -> Retries | None:
    if most is None:
        if on is not None or backoff is not None:
            raise InvalidInput(tr("--retry-on and --backoff need --retries"))
        return None
    given: dict[str, Any] = {"max": most}
    if on is not None:
        given["on"] = [word.strip() for word in on.split(",")]
        if unknown := [word for word in given["on"] if word not in get_args(Retried)]:
            raise InvalidInput(
                tr("--retry-on: there is no end {word}", word=repr(unknown[0])), hint=", ".join(get_args(Retried))
            )
    if backoff is not None:
        given["backoff_s"] = backoff
    return _converted(given, Retries)


def _rollout(
    batches: str | None = None,
    max_failures: str | None = None,
    gate: str | None = None,
    gate_playbook: str | None = None,
    gate_timeout: float | None = None,
    pause: float | None = None,
    rollback: str | None = None,
) -> Rollout | None:
    given = {
        "max_failures": max_failures,
        "gate": gate,
        "gate_playbook": gate_playbook,
        "gate_timeout_s": gate_timeout,
        "pause_s": pause,
        "rollback": rollback,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    if batches is None:
        if asked:
            raise InvalidInput(
                tr("--gate, --pause, --max-failures and --rollback need --batch"), hint=tr("like --batch 1,25%,100%")
            )
        return None
    sizes = [size.strip() for size in batches.split(",")]
    for option, size in [*(("--batch", size) for size in sizes), ("--max-failures", max_failures or "0")]:
        if not _SHARE.fullmatch(size):
            raise InvalidInput(
                tr(
                    "{option}: {value} is neither a number of nodes nor a share of them",
                    option=option,
                    value=repr(size),
                ),
                hint=tr("like --batch 1,25%,100%") if option == "--batch" else "--max-failures 2, --max-failures 10%",
            )
    return _converted({"batches": sizes, **asked}, Rollout)


T = TypeVar("T", bound=msgspec.Struct)


def _converted(given: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(tr("these options do not fit: {error}", error=error)) from None

"""When a job may run on its nodes: purely decided from what is stored, the clock and its window.

In this order: its time is not over, its window is open, it has its lock, its batch is on, its next
attempt is due. What it waits for is told as the first of these that does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmagentos.api.job_control import Batch, Waiting
from llmagentos.fleet.job_states import ENDS, step
from llmagentos.kernel import rollout
from llmagentos.storage.job_changes import Changes, Seen
from llmagentos.storage.job_tables import HostRow, to_json


@dataclass(frozen=True, slots=True)
class Opening:
    """Whether a window is open, and until when it stays so (None: nobody can tell)."""

    open: bool
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate of a batch, or the rollback, came to."""

    batch: int
    result: Literal["passed", "failed"]
    message: str | None = None


Entering = Callable[..., dict[str, Any]]


def drive(
    seen: Seen, now: float, enter: Entering, *, opening: Opening | None = None, verdict: Verdict | None = None
) -> Changes:
    """The next change of a job; empty when there is nothing to do until something changes."""
    spec, row = seen.row.spec, seen.row
    if _over(seen, now) and (left := expire(seen, enter, f"the job took longer than {spec.total_timeout_s:g} s")):
        return left
    changes = Changes()
    if opening is not None and not opening.open:
        changes = _closed(seen, enter, opening)
        if spec.rollout is not None and not changes.hosts:  # what has begun is judged, and rolled back
            _roll(changes, seen, now, enter, verdict, begin=False)
        return changes
    if spec.lock is not None and seen.holder != row.id:
        if seen.holder is not None:
            return _waiting(changes, seen, Waiting("lock", f"{spec.lock} (job {seen.holder})"))
        changes.lock = True
    if spec.rollout is not None:
        _roll(changes, seen, now, enter, verdict)
    if not changes.batches:  # a batch that comes to its end now begins nothing more
        for host in seen.hosts:
            if _due(host, seen, now):
                changes.hosts[host.node] = enter(step(host.state, "release"), not_before=None, message=None)
    if row.released is None and any(values["state"] == "queued" for values in changes.hosts.values()):
        changes.job["released"] = now
    return _waiting(changes, seen, None if changes.hosts else _reason(seen, now))


def _over(seen: Seen, now: float) -> bool:
    most, begun = seen.row.spec.total_timeout_s, seen.row.released
    return most is not None and begun is not None and now - begun > most


def expire(seen: Seen, enter: Entering, message: str) -> Changes:
    """End the job because its time is over: stopped where it runs, failed where it has not begun.

    A rollback is no part of it: it begins once nothing runs any more, and has its nodes' time.
    """
    changes = Changes()
    for host in seen.hosts:
        if host.state in ENDS or (host.state == "cancelling" and host.expired):
            continue
        changes.hosts[host.node] = enter(step(host.state, "expire"), message=message, expired=True)
    undo = {batch.number for batch in seen.batches if batch.kind == "rollback"}
    changes.batches = {number: how for number, how in skipped(seen).items() if number not in undo}
    return changes


def cancel(seen: Seen, enter: Entering, message: str) -> Changes:
    """Take it out of the queues and stop it where it runs, whatever it was to do after that."""
    changes = Changes(batches=skipped(seen))
    for host in seen.hosts:
        if host.state not in ENDS:
            changes.hosts[host.node] = enter(step(host.state, "cancel"), message=message)
    return changes


def skipped(seen: Seen) -> dict[int, dict[str, Any]]:
    """Every open batch is given up."""
    return {batch.number: {"state": "skipped"} for batch in seen.batches if batch.state not in rollout.ENDS}


def _closed(seen: Seen, enter: Entering, opening: Opening) -> Changes:
    changes = Changes()
    for host in seen.hosts:
        if host.state == "queued":
            changes.hosts[host.node] = enter(step(host.state, "hold"))
        elif host.state == "running" and seen.row.spec.window_end == "stop":
            message = f"stopped: the window {seen.row.spec.window!r} closed"
            changes.hosts[host.node] = enter(step(host.state, "expire"), message=message, expired=True)
    begins = any(host.state in ("held", "queued") for host in seen.hosts)
    return _waiting(changes, seen, Waiting("window", seen.row.spec.window or "", opening.until) if begins else None)


def _waiting(changes: Changes, seen: Seen, waiting: Waiting | None) -> Changes:
    if waiting != seen.row.waiting:
        changes.job["waiting"] = to_json(waiting) if waiting is not None else None
    return changes


def _due(host: HostRow, seen: Seen, now: float) -> bool:
    if host.state != "held" or (host.not_before or 0.0) > now:
        return False
    return seen.row.spec.rollout is None or any(
        batch.number == host.batch and batch.state == "running" for batch in seen.batches
    )


def _reason(seen: Seen, now: float) -> Waiting | None:
    for batch in seen.batches:
        if batch.kind == "rollback" and batch.state == "running":
            return Waiting("rollback", f"job {batch.job}" if batch.job is not None else "")
        if batch.state == "gating":
            return Waiting("gate", str(batch.number))
        if batch.state == "pausing":
            return Waiting("pause", str(batch.number), batch.until)
    late = [host for host in seen.hosts if host.state == "held" and (host.not_before or 0.0) > now]
    if late and not any(host.state in ("queued", "running", "cancelling") for host in seen.hosts):
        first = min(late, key=lambda host: host.not_before or 0.0)
        return Waiting("backoff", f"{first.node} ({first.attempt})", first.not_before)
    return None


# --- rollouts -------------------------------------------------------------------------------------


def _roll(
    changes: Changes, seen: Seen, now: float, enter: Entering, verdict: Verdict | None, *, begin: bool = True
) -> None:
    """The rollout's next step; without `begin` none that lets another batch run."""
    undo = next((batch for batch in seen.batches if batch.kind == "rollback"), None)
    if undo is not None and undo.state == "running":
        if verdict is not None and verdict.batch == undo.number:
            ending = rollout.TRANSITIONS["running", "pass" if verdict.result == "passed" else "fail"]
            changes.batches[undo.number] = {"state": ending, "message": verdict.message}
        return
    plan = rollout.decide(_snapshot(seen, undo, verdict), now)
    if plan.release and not begin:
        return
    told = verdict.message if verdict is not None and verdict.result == "failed" else plan.message
    for number, how in plan.batches.items():
        batch = next(each for each in seen.batches if each.number == number)
        values: dict[str, Any] = {"state": rollout.TRANSITIONS[batch.state, how], "until": plan.until}
        if how == "fail":
            values["message"] = told
            changes.job["message"] = f"stopped at batch {number}: {told}"
        changes.batches[number] = values
    states = {host.node: host.state for host in seen.hosts}
    for node in plan.release:
        changes.hosts[node] = enter(step(states[node], "release"))
    for node in plan.withdraw:
        changes.hosts[node] = enter(step(states[node], "cancel"), message="withdrawn: the rollout was stopped")
    if undo is not None and plan.rollback is not None:
        changes.batches[undo.number] = {"state": rollout.TRANSITIONS[undo.state, plan.rollback]}


def _snapshot(seen: Seen, undo: Batch | None, verdict: Verdict | None) -> rollout.Snapshot:
    spec = seen.row.spec.rollout
    assert spec is not None
    gate: rollout.Gate = "none"
    if spec.gate is not None or spec.gate_playbook is not None:
        gate = "unknown"
        if verdict is not None and any(b.number == verdict.batch and b.state == "gating" for b in seen.batches):
            gate = verdict.result
    members: dict[int | None, list[str]] = {}
    for host in seen.hosts:
        members.setdefault(host.batch, []).append(host.node)
    batches = [
        rollout.Batch(batch.number, batch.state, tuple(members.get(batch.number, ())), batch.until)
        for batch in seen.batches
        if batch.kind == "batch"
    ]
    hosts: Mapping[str, rollout.Host] = {host.node: _standing(host) for host in seen.hosts}
    limit = rollout.Limit.of(spec.max_failures)
    return rollout.Snapshot(batches, hosts, limit, gate, spec.pause_s, undo.state if undo is not None else None)


def begun(host: HostRow) -> bool:
    """Whether the playbook ever began there."""
    return host.started is not None or host.attempt > 1


def _standing(host: HostRow) -> rollout.Host:
    if host.state not in ENDS:
        return "running" if host.state in ("running", "cancelling") else "held" if host.state == "held" else "queued"
    if host.state == "succeeded":
        return "succeeded"
    return "failed" if begun(host) else "withdrawn"

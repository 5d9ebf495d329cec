"""What a job waits for and how it got where it is, in words."""

from __future__ import annotations

from llmagentos.api.job_control import Batch, JobChange, Waiting
from llmagentos.cli.output import state, when
from llmagentos.core.i18n import tr


def waits_for(waiting: Waiting) -> str:
    """Why a job does not run now."""
    words = {
        "approval": tr("somebody to approve it"),
        "window": tr("the window {name}", name=waiting.detail),
        "lock": tr("the lock {name}", name=waiting.detail),
        "backoff": tr("the next attempt: {name}", name=waiting.detail),
        "gate": tr("the health gate of batch {name}", name=waiting.detail),
        "pause": tr("the pause after batch {name}", name=waiting.detail),
        "rollback": tr("the rollback: {name}", name=waiting.detail),
    }
    told = words[waiting.reason]
    return tr("{reason}, until {time}", reason=told, time=when(waiting.until)) if waiting.until is not None else told


def batch_row(batch: Batch) -> list[object]:
    """A line of the table of batches."""
    name = tr("rollback") if batch.kind == "rollback" else str(batch.number)
    note = batch.message or (tr("job {job}", job=batch.job) if batch.job is not None else "")
    return [name, state(batch.state), ", ".join(batch.nodes) or "-", note]


def change_row(change: JobChange) -> list[object]:
    """A line of a job's history."""
    what = {
        "job": tr("job"),
        "host": change.node or "",
        "batch": tr("batch {number}", number=change.batch),
        "approval": tr("approval"),
    }[change.what]
    if change.what == "host" and change.attempt > 1:
        what = tr("{node} (attempt {number})", node=what, number=change.attempt)
    steps = change.after if change.before in (None, change.after) else f"{change.before} → {change.after}"
    return [when(change.at), change.by, what, steps, change.message or ""]

"""Schedules as the table shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmagentos.api.schedules import Schedule
from llmagentos.server.console.words import Translate


def rows(schedules: Iterable[Schedule], t: Translate) -> list[dict[str, Any]]:
    """One a schedule: its rule, what it runs, its next time and what came of the last."""
    return [_row(schedule, t) for schedule in schedules]


def _row(schedule: Schedule, t: Translate) -> dict[str, Any]:
    spec = schedule.spec
    last = schedule.fires[0] if schedule.fires else None
    rule = f"{spec.cron} {spec.zone}"
    if spec.every_s is not None:
        rule = t("every {seconds} s", seconds=f"{spec.every_s:g}")
    return {
        "name": schedule.name,
        "state": "paused" if schedule.paused else "active",
        "paused": schedule.paused,
        "rule": rule,
        "template": spec.template.name if spec.template is not None else "",
        "playbook": spec.job.playbook if spec.job is not None else "",
        "next": schedule.next[0] if schedule.next else None,
        "job": last.job if last is not None else None,
        "error": (last.error or "") if last is not None else "",
        "created_by": schedule.created_by,
    }

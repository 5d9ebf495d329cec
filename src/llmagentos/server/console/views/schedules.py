"""Schedules: rows of the table, one with its times, and the form that makes or changes one."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from llmagentos.api.jobs import JobSpec
from llmagentos.api.schedules import Schedule, ScheduleSpec
from llmagentos.api.templates import Template
from llmagentos.core import timespan
from llmagentos.core.errors import CallerError, InvalidInput
from llmagentos.fleet import cron
from llmagentos.server.console.spoken import told
from llmagentos.server.console.views import templates
from llmagentos.server.console.words import Translate

CATCH_UP: Mapping[str, Literal["none", "last"]] = {"none": "none", "last": "last"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a form is about, and what it says so far: its fields have names that end in `!`, unlike a survey's."""

    template: Template | None = None
    job: int | None = None
    spec: JobSpec | None = None
    schedule: ScheduleSpec | None = None
    """What there is, when it is changed."""
    fields: Mapping[str, list[str]] = field(default_factory=dict)
    error: CallerError | None = None

    @property
    def runs(self) -> bool:
        """Whether it is known what is run."""
        return self.template is not None or self.spec is not None

    def text(self, name: str) -> str:
        """What stands in the form's own field `name`."""
        return self.fields.get(f"{name}!", [""])[-1].strip()


def rows(schedules: Iterable[Schedule], t: Translate) -> list[dict[str, Any]]:
    """One a schedule: its rule, what it runs, its next time and what came of the last."""
    return [_row(schedule, t) for schedule in schedules]


def _row(schedule: Schedule, t: Translate) -> dict[str, Any]:
    spec = schedule.spec
    last = schedule.fires[0] if schedule.fires else None
    return {
        "name": schedule.name,
        "state": "paused" if schedule.paused else "active",
        "paused": schedule.paused,
        "cron": spec.cron,
        "every": t("every {span}", span=timespan.written(spec.every_s)) if spec.every_s is not None else "",
        "zone": spec.zone,
        "template": spec.template.name if spec.template is not None else "",
        "playbook": spec.job.playbook if spec.job is not None else "",
        "next": [{"at": at, "there": _there(at, spec.zone)} for at in schedule.next],
        "job": last.job if last is not None else None,
        "error": (last.error or "") if last is not None else "",
        "created_by": schedule.created_by,
    }


def _there(at: float, zone: str) -> str:
    """A time as clocks show it in the schedule's zone."""
    return datetime.datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S %Z")


def page(schedule: Schedule, t: Translate) -> dict[str, Any]:
    """One schedule with its last times."""
    return {
        **_row(schedule, t),
        "created": schedule.created,
        "changed_by": schedule.changed_by,
        "fires": [
            {"due": _there(fire.due, schedule.spec.zone), "at": fire.at, "job": fire.job, "error": fire.error}
            for fire in schedule.fires
        ],
    }


def form(given: Given, t: Translate) -> dict[str, Any]:
    """The fields of the form, and at which of them what is wrong."""
    spec, template, error = given.schedule, given.template, given.error
    known = {} if spec is None else _texts(spec)
    survey = None
    if template is not None:
        answered = given.fields or (_answers(spec, template) if spec is not None else None)
        survey = templates.page(template, answered, t)
    wrong = str(error.details.get("parameter", "")) if error is not None else ""
    return {
        "survey": survey,
        "job": given.job,
        "playbook": given.spec.playbook if given.spec is not None else "",
        "known": given.runs,
        "error": told(error, t) if error is not None else None,
        "wrong": wrong,
        "placed": bool(wrong) and (wrong.endswith("!") or survey is not None),
        **{name: given.text(name) if given.fields else known.get(name, "") for name in ("name", *_FIELDS)},
    }


_FIELDS = ("cron", "every", "zone", "jitter", "catch_up")


def _texts(spec: ScheduleSpec) -> dict[str, str]:
    return {
        "cron": spec.cron or "",
        "every": timespan.written(spec.every_s) if spec.every_s is not None else "",
        "zone": spec.zone,
        "jitter": timespan.written(spec.jitter_s) if spec.jitter_s else "",
        "catch_up": spec.catch_up,
    }


def _answers(spec: ScheduleSpec, template: Template) -> dict[str, list[str]]:
    """The answers that a schedule gives, and what stands for those that it leaves out."""
    given = spec.template.parameters if spec.template is not None else {}
    found = {each.name: given.get(each.name, each.default) for each in template.spec.parameters}
    return {
        name: [str(each) for each in (value if isinstance(value, list) else [value])]
        for name, value in found.items()
        if value is not None
    }


def times(given: Given, spec: ScheduleSpec) -> ScheduleSpec:
    """`spec` with the times that the form says. Raises `InvalidInput` that names the field."""
    rule, zone = given.text("cron"), given.text("zone") or "UTC"
    every, jitter = _span(given, "every"), _span(given, "jitter")
    if (rule == "") == (every is None):
        raise InvalidInput("a schedule has either a cron expression or an interval", parameter="cron!")
    _at("zone!", lambda: cron.zone_of(zone))
    if rule:
        _at("cron!", lambda: cron.check(rule, zone))
    if every is not None and not 10 <= every <= 366 * 86_400:
        raise InvalidInput("an interval is between 10s and 366d", parameter="every!")
    if jitter is not None and jitter > 86_400:
        raise InvalidInput("times are late by at most 24h", parameter="jitter!")
    catch_up = CATCH_UP.get(given.text("catch_up"), "none")
    return msgspec.structs.replace(
        spec, cron=rule or None, every_s=every, zone=zone, jitter_s=jitter or 0.0, catch_up=catch_up
    )


def _span(given: Given, name: str) -> float | None:
    text = given.text(name)
    found = timespan.seconds(text) if text else None
    if text and found is None:
        raise InvalidInput(f"{text[:80]!r} is no span of time: write 90s, 30m, 12h or 7d", parameter=f"{name}!")
    return found


def _at(name: str, check: Any) -> None:
    """Have what `check` raises name the field."""
    try:
        check()
    except InvalidInput as error:
        raise InvalidInput(error.message, hint=error.hint, parameter=name) from None

"""`llmctl schedules change`: what is given changes, all else stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmagentos.api.job_control import Retries, Rollout
from llmagentos.api.jobs import InventorySource, JobSpec
from llmagentos.api.schedules import ScheduleSpec, TemplateUse
from llmagentos.cli.inventories import OUTSIDE
from llmagentos.cli.schedule_options import changed_job, changed_use, require_one_kind, times, told
from llmagentos.core.errors import InvalidInput

DIGEST = "a" * 64
FULL = JobSpec(
    DIGEST,
    "site.yml",
    inventory=[InventorySource("web1", "web1")],
    limit="web",
    extra_vars={"mode": "fast", "port": 80},
    check=True,
    tags=["config"],
    forks=3,
    priority=5,
    total_timeout_s=600.0,
    retries=Retries(2, ["failed"], 30.0),
    lock="web",
    window="night",
    window_end="stop",
    approval="required",
    approvers=["operator:*"],
    rollout=Rollout(["1", "25%"], "10%", "http://{{ node }}/", "check.yml", 30.0, 5.0, "back.yml"),
)


def change(before: JobSpec | None = FULL, playbook: Path | None = None, **given: Any) -> tuple[JobSpec, bytes | None]:
    nothing: dict[str, Any] = {
        "inventories": (), "limit": None, "extra": (), "tags": (), "check": False, "diff": False, "unset": (),
    }  # fmt: skip
    return changed_job(before, playbook, **nothing | given)


def test_what_is_not_given_stays() -> None:
    assert change() == (FULL, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"limit": "db"}, {"limit": "db"}),
        ({"extra": ("port=81 more=1",)}, {"extra_vars": {"mode": "fast", "port": "81", "more": "1"}}),
        ({"extra": ("a=1",), "unset": ("extra",)}, {"extra_vars": {"a": "1"}}),
        ({"tags": ("a,b",)}, {"tags": ["a", "b"]}),
        ({"diff": True}, {"diff": True}),
        ({"unset": ("check", "tags", "limit")}, {"check": False, "tags": [], "limit": None}),
        ({"priority": 0}, {"priority": 0}),
        ({"window": "day"}, {"window": "day"}),
        ({"unset": ("window",)}, {"window": None, "window_end": "finish"}),
        ({"unset": ("window_stop",)}, {"window_end": "finish"}),
        ({"unset": ("approval",)}, {"approval": None, "approvers": []}),
        ({"approvers": ("admin:*",)}, {"approvers": ["admin:*"]}),
        ({"retries": 4}, {"retries": Retries(4, ["failed"], 30.0)}),
        ({"backoff": 60.0, "unset": ("retry_on",)}, {"retries": Retries(2, ["failed", "unreachable"], 60.0)}),
        ({"unset": ("retries",)}, {"retries": None}),
        ({"max_failures": "1"}, {"rollout": msgspec.structs.replace(FULL.rollout, max_failures="1")}),
        ({"unset": ("batches",)}, {"rollout": None}),
        ({"inventories": ("db1,db2",)}, {"inventory": [InventorySource("db1,db2", "db1\ndb2")]}),
        ({"unset": ("inventories",)}, {"inventory": []}),
    ],
)
def test_one_option_changes_what_it_is_about(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert change(**given) == (msgspec.structs.replace(FULL, **expected), None)


@pytest.mark.parametrize(
    "given",
    [
        {"before": None, "max_failures": "1"},
        {"before": None, "backoff": 5.0},
        {"unset": ("window",), "window_stop": True},
        {"unset": ("batches",), "gate": "http://x/"},
        {"max_failures": "many"},
        {"extra": ("novalue",)},
    ],
)
def test_what_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        change(**given)


def test_another_playbook_brings_its_directory(tmp_path: Path) -> None:
    (tmp_path / "new.yml").write_text("[]\n")
    found, content = change(playbook=tmp_path / "new.yml")
    assert content is not None
    assert found == msgspec.structs.replace(FULL, bundle=found.bundle, playbook="new.yml")
    assert found.bundle != DIGEST
    first, content = change(None, tmp_path / "new.yml", priority=3)
    assert (first, content is None) == (JobSpec(found.bundle, "new.yml", priority=3), False)
    with pytest.raises(InvalidInput, match=r"no playbook .*gone\.yml"):
        change(playbook=tmp_path / "gone.yml")


def test_variables_of_an_inventory_need_the_playbooks_directory(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text("a: 1\n")
    (tmp_path / "hosts").write_text("web1\n")
    with pytest.raises(InvalidInput, match="variables beside it"):
        change(inventories=(str(tmp_path / "hosts"),))
    (tmp_path / "play").mkdir()
    playbook = tmp_path / "play" / "site.yml"
    playbook.write_text("[]\n")
    found, _ = change(None, playbook, inventories=(str(tmp_path / "hosts"),))
    assert found.inventory[0].directory == OUTSIDE
    with pytest.raises(InvalidInput, match="went along") as caught:
        change(found, playbook)
    assert "-i" in str(caught.value.hint)
    assert change(found, playbook, unset=("inventories",))[0].inventory == []


def test_times_are_a_cron_expression_or_an_interval() -> None:
    nothing: dict[str, Any] = dict.fromkeys(("cron", "every", "zone", "jitter", "catch_up"))
    before = ScheduleSpec("30 2 * * *", None, "Europe/Berlin", 60.0, "last")
    assert times(before, **nothing) == before
    slower = times(before, **nothing | {"every": 3600.0})
    assert slower == ScheduleSpec(None, 3600.0, "Europe/Berlin", 60.0, "last")
    assert times(slower, **nothing | {"cron": "0 3 * * *", "zone": "UTC"}, unset=("jitter",)) == ScheduleSpec(
        "0 3 * * *", catch_up="last"
    )
    with pytest.raises(InvalidInput, match="either"):
        times(before, **nothing | {"every": 60.0, "cron": "* * * * *"})
    for wrong in ({"every": 5.0}, {"every": 400 * 86_400.0}, {"jitter": 90_000.0}):
        with pytest.raises(InvalidInput):
            times(before, **nothing | wrong)


def test_answers_stay_with_their_template() -> None:
    before = TemplateUse("deploy", {"release": "v1"})
    assert changed_use(before, None, ()) == changed_use(before, "deploy", ()) == before
    assert changed_use(before, None, ("parameters",)) == TemplateUse("deploy")
    assert changed_use(before, "other", ()) == TemplateUse("other")
    assert changed_use(None, "other", ()) == TemplateUse("other")


@pytest.mark.parametrize(
    "given",
    [
        {"runs_template": False, "parameters": ("a=1",), "job": {}},
        {"runs_template": False, "parameters": (), "job": {}, "unset": ("parameters",)},
        {"runs_template": True, "parameters": (), "job": {"limit": "web"}},
        {"runs_template": True, "parameters": (), "job": {"check": True}},
        {"runs_template": True, "parameters": (), "job": {}, "unset": ("lock",)},
    ],
)
def test_options_of_the_other_kind(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        require_one_kind(**given)
    require_one_kind(runs_template=True, parameters=("a=1",), job={"limit": None, "check": False, "tags": ()})


def test_all_options_are_told_as_they_are_given() -> None:
    shown = dict(told(ScheduleSpec("30 2 * * *", jitter_s=300.0, catch_up="last", job=FULL)))
    assert shown == {
        "jitter": "5m", "catch-up": "last", "inventory": "web1", "limit": "web", "check": "yes",
        "extra-vars": "mode=fast port=80", "tags": "config", "priority": "5", "lock": "web", "window": "night",
        "window-stop": "yes", "approval": "yes", "approver": "operator:*", "total-timeout": "10m", "retries": "2",
        "retry-on": "failed", "backoff": "30s", "batch": "1,25%", "max-failures": "10%", "gate": "http://{{ node }}/",
        "gate-playbook": "check.yml", "gate-timeout": "30s", "pause": "5s", "rollback": "back.yml",
    }  # fmt: skip
    assert list(told(ScheduleSpec(every_s=60.0, job=JobSpec(DIGEST, "site.yml")))) == []
    assert list(told(ScheduleSpec(every_s=60.0, template=TemplateUse("x", {"a": 1})))) == [("parameter", "a=1")]

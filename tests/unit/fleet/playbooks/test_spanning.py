"""Which playbooks span nodes, who takes part, and what is refused."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import Any

import pytest

from llmagentos.api.job_control import Retries, Rollout
from llmagentos.api.jobs import InventorySource, JobSpec
from llmagentos.api.plays import Span
from llmagentos.core.errors import InvalidInput
from llmagentos.fleet.playbooks import spans
from llmagentos.fleet.playbooks.plan import plan

INVENTORY = "[web]\nw1\nw2\n[db]\nd1\n[lb]\nl1\n"
NODES = ["w1", "w2", "d1", "l1"]


def span(tasks: str, *, play: str = "hosts: web", more: dict[str, str] | None = None, **options: Any) -> Span | None:
    files = {"site.yml": f"- {play}\n  tasks:\n{tasks}", **(more or {})}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    content = out.getvalue()
    inventory = [InventorySource("hosts", INVENTORY)]
    spec = JobSpec(hashlib.sha256(content).hexdigest(), "site.yml", inventory, **options)
    planned = plan(spec, content, NODES)
    found = planned.inventory.span
    assert found is None or found.nodes == planned.hosts
    return found


PLAIN = "    - command: uptime\n"


@pytest.mark.parametrize(
    "tasks",
    [
        PLAIN,
        "    # run_once: true\n" + PLAIN,
        '    - debug: {msg: "{{ hostvars[inventory_hostname].x }} {{ groups.web }}"}\n',
        "    - {command: uptime, run_once: false}\n",
        '    - {command: uptime, delegate_to: "{{ inventory_hostname }}"}\n',
    ],
)
def test_those_whose_hosts_need_nothing_of_each_other_do_not(tasks: str) -> None:
    assert span(tasks) is None


@pytest.mark.parametrize(
    ("tasks", "play", "reason"),
    [
        (PLAIN, "hosts: web\n  serial: 1", "site.yml:2: serial"),
        (PLAIN, "hosts: web\n  any_errors_fatal: true", "site.yml:2: any_errors_fatal"),
        ("    - {command: uptime, run_once: true}\n", "hosts: web", "site.yml:3: run_once"),
        ("    - {command: uptime, throttle: 1}\n", "hosts: web", "site.yml:3: throttle"),
        ("    - group_by: {key: x}\n", "hosts: web", "site.yml:3: group_by"),
        ("    - meta: end_play\n", "hosts: web", "site.yml:3: end_play"),
        ('    - debug: {msg: "{{ hostvars.w1.x }}"}\n', "hosts: web", "site.yml:3: hostvars"),
        ('    - debug: {msg: "{{ ansible_play_batch }}"}\n', "hosts: web", "site.yml:3: ansible_play_batch"),
        (f"{PLAIN}- hosts: db\n  tasks:\n{PLAIN}", "hosts: web", "site.yml:4: a second play"),
        (PLAIN, "hosts: web\n  roles: [installed]", "site.yml:2: the role 'installed', which is not beside"),
    ],
)
def test_those_that_do(tasks: str, play: str, reason: str) -> None:
    found = span(tasks, play=play)
    assert found is not None
    assert found.reasons[0].startswith(reason)
    assert found.lead == "w1"
    assert span(tasks, play=play.replace("web", "d1"), limit="d1") is None, "not with one node"


def test_words_in_what_may_be_included_or_is_a_template_count() -> None:
    assert span(PLAIN, more={"x.j2": "{{ hostvars.w2.y }}", "other.yml": "- hosts: all\n  serial: 1\n"}) is not None
    assert span(PLAIN, more={"sub/t.yml": "- {command: x, run_once: true}\n"}) is not None
    assert span(PLAIN, more={"other.yml": "- hosts: all\n  serial: 1\n", "README.md": "serial: hostvars"}) is None


@pytest.mark.parametrize(
    ("target", "helpers"),
    [
        ("l1", ["l1"]),
        ("localhost", []),
        ('"{{ groups.db.0 }}"', ["d1"]),
        ("\"{{ groups['lb'] | first }}\"", ["l1"]),
        ('"{{ item }}"', ["d1", "l1"]),
    ],
)
def test_nodes_that_tasks_are_delegated_to_take_part(target: str, helpers: list[str]) -> None:
    found = span(f"    - {{command: uptime, delegate_to: {target}}}\n")
    assert found is not None
    assert found.nodes == ["w1", "w2", *helpers]


@pytest.mark.parametrize(
    ("tasks", "play", "message"),
    [
        (
            "    - {command: x, delegate_to: nobody}\n",
            "hosts: web",
            "site.yml:3: delegate_to: there is no host",
        ),
        (PLAIN, "hosts: web\n  serial: 1\n  strategy: debug", "site.yml:3: strategy: debug cannot be had"),
        (PLAIN, "hosts: web\n  serial: 1\n  order: shuffle", "site.yml:3: order: shuffle"),
        (
            "    - {command: \"{{ lookup('password', 'x') }}\", throttle: 1}\n",
            "hosts: web",
            "site.yml:3: the lookup `password`",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_place(tasks: str, play: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        span(tasks, play=play)


def test_nodes_go_in_step_where_others_use_what_one_fetches() -> None:
    alone = "    - fetch: {src: /etc/issue, dest: fetched}\n"
    assert span(alone) is None
    found = span(alone + "    - copy: {src: fetched/w1/etc/issue, dest: /tmp/x}\n")
    assert found is not None
    assert found.files
    assert found.reasons == ["site.yml:3: what is fetched is used again"]
    other = span(alone + "    - {command: uptime, throttle: 1}\n")
    assert other is not None
    assert not other.files


def test_a_password_that_one_host_makes_is_fine() -> None:
    tasks = "    - set_fact: {p: \"{{ lookup('password', 'x') }}\"}\n      run_once: true\n"
    assert span(tasks) is not None


def test_what_is_asked_for() -> None:
    assert span(PLAIN, lockstep=True) is not None
    assert span(PLAIN, forks=1) is not None
    assert span(PLAIN, forks=2) is None
    second = f"{PLAIN}- hosts: db\n  tasks:\n{PLAIN}"
    assert span(second, lockstep=False) is None
    assert span(second, rollout=Rollout(["1"])) is None
    once = "    - {command: uptime, run_once: true}\n"
    for options in ({"lockstep": False}, {"rollout": Rollout(["1"])}, {"retries": Retries(1)}):
        with pytest.raises(InvalidInput, match=r"site.yml:3: run_once: this has the nodes go in step"):
            span(once, **options)


def test_not_with_any_number_of_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MAX_NODES", 1)
    with pytest.raises(InvalidInput, match=r"site.yml:3: run_once: these are 2 nodes"):
        span("    - {command: uptime, run_once: true}\n")

"""Where fetched files may go: what the playbook's text names, and nothing that a node could make up."""

from __future__ import annotations

import pytest

from llmagentos.fleet.playbooks.destinations import Destination
from llmagentos.fleet.playbooks.fetches import destinations, read_again

ALLOWED = [
    ("fetched", False, "fetched/web1/etc/hosts"),
    ("fetched/", False, "fetched/web1/etc/hosts"),
    ("./fetched", False, "fetched/web1/x"),
    ("a//b", False, "a/b/web1/x"),
    (".", False, "web1/etc/hosts"),
    ("{{ playbook_dir }}/fetched/", False, "fetched/web1/a"),
    ("/tmp/f", False, "/tmp/f/web1/etc/x"),
    ("/srv/{{ day }}", False, "/srv/monday/web1/b"),
    ("fetched", False, "fetched/localhost/x"),
    ("fetched/", True, "fetched/hosts"),
    ("fetched/it", True, "fetched/it"),
    ("{{ inventory_hostname }}.log", True, "web1.log"),
    ("logs/{{ inventory_hostname }}/{{ day }}.log", True, "logs/web1/monday.log"),
    ("日志", False, "日志/web1/var/log/系统"),
    ("fetched", None, "fetched/web1/x"),
    ("fetched", None, "fetched"),
]
REFUSED = [
    ("fetched", False, "fetched/web2/etc/hosts"),
    ("fetched", False, "site.yml"),
    ("fetched", False, "../fetched/web1/x"),
    ("fetched", False, "fetched/web1/../../site.yml"),
    ("fetched", False, "/fetched/web1/x"),
    ("/tmp/f", False, "tmp/f/web1/x"),
    ("fetched", False, "fetched"),
    ("{{ anywhere }}", False, "roles/web1/x"),
    ("/{{ anywhere }}", False, "/etc/web1/x"),
    ("{{ item }}/", True, "site.yml"),
    ("logs/{{ inventory_hostname }}.log", True, "logs/web2.log"),
    ("fetched/it", True, "fetched/other"),
    ("", True, "site.yml"),
]


@pytest.mark.parametrize(("dest", "flat", "path"), ALLOWED)
def test_what_the_playbook_names_is_allowed(dest: str, flat: bool | None, path: str) -> None:
    assert Destination(dest, "/etc/hosts", flat).allows(path, "web1")


@pytest.mark.parametrize(
    ("dest", "src", "flat", "paths"),
    [
        ("/tmp/f", "/etc/hosts", False, ["/tmp/f/web1/etc/hosts"]),
        ("/tmp//f/", "/etc/hosts", True, ["/tmp/f/hosts"]),
        ("/tmp/{{ inventory_hostname }}.log", "/x", True, ["/tmp/web1.log"]),
        ("/tmp/f/", "/etc/hosts", None, ["/tmp/f/web1/etc/hosts", "/tmp/f/hosts"]),
        ("/tmp/f", "~/x", False, []),
        ("/tmp/f", "/etc/{{ item }}", False, []),
        ("/tmp/{{ item }}", "/etc/hosts", True, []),
        ("/etc/", "/x", True, ["/etc/x"]),
        ("/", "/x", True, []),
        ("fetched", "/etc/hosts", False, []),
        ("/tmp/f", "/../../etc/passwd", False, []),
    ],
)
def test_where_a_host_s_file_is_by_the_text_alone(dest: str, src: str, flat: bool | None, paths: list[str]) -> None:
    assert Destination(dest, src, flat).places("web1") == paths


@pytest.mark.parametrize(("dest", "flat", "path"), REFUSED)
def test_what_it_does_not_name_is_refused(dest: str, flat: bool, path: str) -> None:
    assert not Destination(dest, "/etc/hosts", flat).allows(path, "web1", ["web1", "web2"])


def test_a_delegated_task_fetches_for_another_host() -> None:
    delegated = Destination("fetched", "/etc/hosts", False, any_host=True)
    assert delegated.allows("fetched/web2/x", "web1", ["web1", "web2"])
    assert not delegated.allows("fetched/web3/x", "web1", ["web1", "web2"])


PLAY = b"""\
- hosts: all
  vars: {kept: "{{ playbook_dir }}/kept"}
  tasks:
    - block:
        - ansible.builtin.fetch: {src: /a, dest: "{{ kept }}", flat: no}
    - fetch: src=/b dest="{{ given }}/b" flat=yes
    - {action: "fetch src=/c dest=c/"}
"""


def test_tasks_are_found_wherever_they_stand_and_variables_are_filled_in() -> None:
    found = destinations({"site.yml": PLAY, "roles/x/tasks/main.yml": b"- fetch: [", "a.j2": b""}, {"given": "g"})
    assert {(each.dest, each.src, each.flat) for each in found} == {
        ("{{ kept }}", "/a", False),
        ("{{ playbook_dir }}/kept", "/a", False),
        ("g/b", "/b", True),
        ("c/", "/c", False),
    }
    assert any(each.allows("kept/web1/a", "web1") for each in found)


def test_an_imported_playbook_has_its_own_directory() -> None:
    files = {"site.yml": b"- import_playbook: sub/other.yml\n", "sub/other.yml": PLAY}
    found = destinations(files, {})
    assert any(each.allows("sub/kept/web1/a", "web1") for each in found)
    assert any(each.allows("sub/c/web1/c", "web1") for each in found)
    assert not any(each.allows("other/c/web1/c", "web1") for each in found)


def test_whether_others_read_what_is_fetched() -> None:
    alone = b"- hosts: all\n  tasks:\n    - fetch: {src: /etc/issue, dest: fetched}\n"
    assert not read_again({"site.yml": alone}, {})
    assert read_again({"site.yml": alone + b"    - copy: {src: fetched/w1/etc/issue, dest: /x}\n"}, {})
    assert read_again({"site.yml": alone, "roles/a/tasks/main.yml": b"- copy: {src: '{{ x }}/fetched'}"}, {})

"""All that is wrong with a playbook, each with its place."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.api.jobs import InventorySource, JobSpec
from llmagentos.core.errors import CallerError
from llmagentos.fleet.playbooks import arguments
from llmagentos.fleet.playbooks.document import compose, get
from llmagentos.fleet.playbooks.findings import Finding
from llmagentos.fleet.playbooks.lint import lint


def found(playbook: str | bytes, *, more: dict[str, str] | None = None, inventory: str = "web1\n") -> list[Finding]:
    text = playbook if isinstance(playbook, bytes) else playbook.encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in {"site.yml": text, **{k: v.encode() for k, v in (more or {}).items()}}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    packed = out.getvalue()
    spec = JobSpec(hashlib.sha256(packed).hexdigest(), "site.yml", [InventorySource("hosts", inventory)])
    return lint(spec, packed, None)


def told(task: str, **more: str) -> list[str]:
    given = {name.replace("__", "/"): text for name, text in more.items()}
    findings = found(f"- hosts: all\n  tasks:\n    - {task}\n", more=given)
    return [f"{each.line} {each.severity} {each.message}" for each in findings]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("copy: src=a dest=b", "3 error there is no file 'a'"),
        ("copy: {content: x, dst: /y, dest: /y}", "3 error copy has no option 'dst': the nearest is 'dest'"),
        ("copy: {content: x}", "3 error copy needs the option 'dest'"),
        ("file: path=/x state=directry", "3 error file: state cannot be 'directry': the nearest is 'directory'"),
        ("apt: name=nginx stat=present", "3 error apt has no option 'stat': the nearest is 'state'"),
        ("apt: nginx", "3 error apt takes options like name=value, and 'nginx' is none"),
        ("{apt: {nme: x}, ignore_errors: true}", "3 warning apt has no option 'nme': the nearest is 'name'"),
        ("{template: {src: t, dest: /x}, when: x}", "3 warning there is no file 't'"),
        ("include_tasks: none.yml", "3 warning there is no file 'none.yml' to include"),
        ("import_tasks: none.yml", "3 error there is no file 'none.yml' to import"),
        ("comand: x", "3 error unknown task module 'comand': the nearest is 'command'"),
        ("include_vars: none.yml", "3 error there is no file 'none.yml'"),
        ("script: none.sh --now", "3 error there is no file 'none.sh'"),
        ("uri: url=http://x src=none", "3 error there is no file 'none'"),
        ("unarchive: src=none dest=/x copy=yes", "3 error there is no file 'none'"),
    ],
)
def test_faults_of_a_task(task: str, expected: str) -> None:
    assert expected in told(task)


@pytest.mark.parametrize(
    "task",
    [
        "shell: echo a=b c",
        "shell: {cmd: uptime, chdir: /}",
        "copy: {content: x, dest: /y, mode: '0644', owner: root}",
        'copy: "{{ options }}"',
        "{copy: {content: x}, args: {dest: /y}}",
        '{copy: {content: x}, args: "{{ more }}"}',
        "copy: {src: /etc/hosts, dest: /x}",
        "copy: {src: there, dest: /x, remote_src: true}",
        'template: {src: "{{ name }}.j2", dest: /x}',
        "template: {src: t.j2, dest: /x}",
        "script: run.sh --now",
        "script: {cmd: run.sh --now}",
        "package: {name: x, update_cache: true}",
        "set_fact: {anything: 1}",
        "add_host: {name: x, anything: 1}",
        'file: {path: /x, state: "{{ wanted }}"}',
        "file: {path: /x, state: directory}",
        "community.general.thing: {any: 1}",
        "debug: msg='two words'",
        "service: name=nginx state=restarted",
        "copy: src='two words' dest=/x",
        "unarchive: src=there.tar dest=/x copy=no",
    ],
)
def test_what_is_right_is_left_alone(task: str) -> None:
    assert told(task, **{"templates__t.j2": "x", "files__run.sh": "x", "files__two words": "x"}) == []


def test_all_faults_are_found_and_not_only_the_first() -> None:
    playbook = """\
- hosts: wbe1
  vars_files: [none.yml, [a.yml, there.yml]]
  roles: [common]
  tasks:
    - comand: x
    - block:
        - copy: {dst: x}
      rescue:
        - copy: {content: x, dest: /y}
  taks: []
- import_playbook: none.yml
"""
    findings = found(playbook, more={"there.yml": "{}"})
    assert [(each.line, each.severity, each.code) for each in findings] == [
        (10, "error", "syntax"),
        (11, "error", "syntax"),
    ]
    findings = found(playbook.replace("  taks: []\n- import_playbook: none.yml\n", ""), more={"there.yml": "{}"})
    assert [(each.line, each.severity, each.code) for each in findings] == [
        (1, "error", "hosts"),
        (2, "error", "file"),
        (3, "warning", "role"),
        (5, "error", "syntax"),
        (7, "warning", "option"),
        (7, "warning", "required"),
    ]


def test_own_modules_and_defaults_are_not_judged() -> None:
    assert found("- hosts: all\n  tasks:\n    - apt: {any: 1}\n", more={"library/apt.py": "x"}) == []
    text = "- hosts: all\n  module_defaults: {copy: {dest: /x}}\n  tasks:\n    - copy: {content: x}\n"
    assert found(text) == []


def test_what_is_encrypted_cannot_be_read_and_is_left_to_the_node() -> None:
    secret = "$ANSIBLE_VAULT;1.1;AES256\n6162\n"
    assert found("- hosts: all\n  tasks:\n    - import_tasks: t.yml\n", more={"t.yml": secret}) == []
    assert "encrypted" in found(secret)[0].message


WORDS = st.sampled_from(
    [
        *(
            "- ",
            "  ",
            "\n",
            "{{ x }}",
            "{{",
            "}}",
            "'",
            '"',
            "=",
            "[",
            "]",
            "{",
            "}",
            "#",
            "!vault",
            "&a",
            "*a",
            "\t",
            "é",
        ),
        *("hosts: all", "tasks:", "copy:", "src=", "a=b", "apt: name=x", "args:", "template:", "include_tasks:"),
        "delegate_to: ",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=30).map("".join))
def test_any_text_gives_findings_or_one_clear_error(text: str) -> None:
    try:
        findings = found("- hosts: all\n  tasks:\n    - " + text)
    except CallerError:
        return
    assert all(each.line >= 1 and each.file for each in findings)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["copy", "apt", "lineinfile", "debug"]), st.text(max_size=200))
def test_any_text_as_options(module: str, text: str) -> None:
    root = compose("x", f"{module}: placeholder\n")
    content = get(root, module)
    content.value = text
    list(arguments.problems(module, content, root, defaults=False))

"""What is found in a playbook before it runs, each fault with its line."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from llmagentos.fleet.playbooks.check import Play, Reader
from llmagentos.fleet.playbooks.document import PlaybookError
from llmagentos.fleet.playbooks.vocabulary import vocabulary


def plays(text: str | bytes, *, extra_vars: Mapping[str, object] | None = None, **more: str) -> list[Play]:
    content = text if isinstance(text, bytes) else text.encode()
    files = {"site.yml": content} | {name.replace("__", "/") + ".yml": body.encode() for name, body in more.items()}
    return Reader(files, vocabulary(), extra_vars or {}).playbook("site.yml")


GOOD = """\
- name: Web
  hosts: [web, "!old"]
  become: true
  vars: {a: 1}
  pre_tasks:
    - ansible.builtin.setup:
  roles:
    - common
    - {role: not_here, x: 1}
  tasks:
    - name: Packages
      yum: name=nginx state=present
      with_items: [a]
      notify: Reload
    - block:
        - shell: |
            echo hello
          args: {chdir: /tmp}
        - community.general.anything: {}
      rescue:
        - debug: {msg: "{{ ansible_failed_result }}"}
      always:
        - meta: flush_handlers
      when: x is defined
    - action: copy src=a dest=b
    - local_action: {module: command, cmd: uptime}
    - import_tasks: more.yml
    - include_tasks: "{{ os }}.yml"
  handlers:
    - name: Reload
      listen: web
      service: {name: nginx, state: reloaded}
- import_playbook: second.yml
"""


def test_a_good_playbook_yields_its_plays():
    found = plays(
        GOOD,
        more="- ping:\n",
        second="- hosts: db\n  tasks: []\n",
        roles__common__tasks__main="- stat: path=/\n",
    )
    assert found == [
        Play("site.yml", 2, "Web", ("web", "!old")),
        Play("second.yml", 1, "db", ("db",)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "site.yml:1: the playbook is empty"),
        ("---\n", "site.yml:1: the playbook is empty"),
        ("[]", "site.yml:1: the playbook is empty"),
        ("hosts: all\n", "site.yml:1: expected a list of plays, found a mapping"),
        ("- all\n", "site.yml:1: expected a play, found 'all'"),
        ("- tasks: []\n", "site.yml:1: a play needs hosts"),
        ("- hosts:\n", "site.yml:1: hosts has to name hosts or groups, found nothing"),
        ("- hosts: [{a: b}]\n", "site.yml:1: hosts has to name hosts or groups, found a list"),
        ("- hosts: all\n  task: []\n", "site.yml:2: a play has no keyword 'task': the nearest is 'tasks'"),
        ("- hosts: all\n  vars_prompt: who\n", "site.yml:2: vars_prompt has to be a list, found 'who'"),
        ("- hosts: all\n  vars_prompt: [who]\n", "site.yml:2: expected a variable to ask for, found 'who'"),
        ("- hosts: all\n  vars_prompt:\n    - prompt: x\n", "site.yml:3: vars_prompt needs the name of a variable"),
        (
            "- hosts: all\n  vars_prompt:\n    - name: x\n      privat: no\n",
            "site.yml:4: vars_prompt has no key 'privat': the nearest is 'private'",
        ),
        (
            "- hosts: all\n  tasks:\n    - debug:\n        msg: {{ x }}\n",
            "site.yml:4: a key has to be text, not a mapping",
        ),
        ("- hosts: all\n  vars: {a: !include b.yml}\n", "site.yml:2: the tag !include is not known"),
        ("- hosts: all\n  <<: [1]\n", "site.yml:2: << merges mappings, not '1'"),
        ('- hosts: all\n  name: "a\u2028b"\n  task: []\n', "site.yml:3: a play has no keyword 'task'"),
        ("- hosts: all\n  tasks:\n    - import_role: {}\n", "site.yml:3: import_role needs the name of a role"),
        ("- hosts: all\n  tasks: 1\n", "site.yml:2: tasks has to be a list of tasks, found '1'"),
        ("- hosts: all\n  tasks:\n    - ping\n", "site.yml:3: expected a task, found 'ping'"),
        ("- hosts: all\n  tasks:\n    - name: x\n", "site.yml:3: this task names no task module"),
        (
            "- hosts: all\n  tasks:\n    - name: x\n      coppy: {}\n",
            "site.yml:4: unknown task module 'coppy': the nearest is 'copy'",
        ),
        (
            "- hosts: all\n  tasks:\n    - ansible.builtin.shel: x\n",
            "site.yml:3: unknown task module 'ansible.builtin.shel': the nearest is 'shell'",
        ),
        (
            "- hosts: all\n  tasks:\n    - shell: x\n      whne: y\n",
            "site.yml:4: neither a keyword nor a task module: 'whne': the nearest is 'when'",
        ),
        (
            "- hosts: all\n  tasks:\n    - shell: x\n      copy: {}\n",
            "site.yml:4: two task modules in one task: 'shell' and 'copy'",
        ),
        ("- hosts: all\n  tasks:\n    - shell: [x]\n", "site.yml:3: shell takes text or a mapping, not a list"),
        (
            "- hosts: all\n  handlers:\n    - block: []\n      resque: []\n",
            "site.yml:4: a block has no keyword 'resque': the nearest is 'rescue'",
        ),
        ("- hosts: all\n  tasks:\n    - rescue: []\n", "site.yml:3: rescue and always need a block"),
        (
            "- hosts: all\n  tasks:\n    - action: shhell ls\n",
            "site.yml:3: unknown task module 'shhell': the nearest is 'shell'",
        ),
        (
            "- hosts: all\n  tasks:\n    - action: copy a=b\n      ping:\n",
            "site.yml:3: two task modules in one task: 'copy' and 'ping'",
        ),
        ("- hosts: all\n  tasks:\n    - import_tasks: no.yml\n", "site.yml:3: there is no file 'no.yml' to import"),
        ("- import_playbook: no.yml\n", "site.yml:1: there is no playbook 'no.yml'"),
        ("- hosts: all\n  roles: web\n", "site.yml:2: roles has to be a list, found 'web'"),
        (
            "- hosts: all\n\ttasks: []\n",
            "site.yml:2: not YAML: while scanning for the next token found character '\\t'",
        ),
        ("- hosts: all\n  name: a: b\n", "site.yml:2: not YAML: mapping values are not allowed here"),
        ("- hosts: *x\n", "site.yml:1: not YAML: found undefined alias 'x'"),
        (b"- hosts: all\n  name: \xff\n", "site.yml:2: not UTF-8: byte 0xff"),
        (b"- hosts: all\n  name: \x07\n", "site.yml:2: not YAML: the character U+0007 is not allowed"),
        (b"[" * 5000, "site.yml:1: not a playbook: nested too deeply"),
        ("[" * 100 + "]" * 100, "site.yml:1: nested deeper than 60 levels"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
            "values (aliases count each time)",
        ),
    ],
)
def test_faults_say_where_and_what(text, message):
    with pytest.raises(PlaybookError) as caught:
        plays(text)
    assert message in caught.value.message


def test_modules_that_come_along_are_known():
    text = b"- hosts: all\n  tasks:\n    - mine: {}\n    - own.coll.mod: {}\n    - old: {}\n"
    files = {"site.yml": text, "library/mine.py": b"", "roles/r/library/_old.py": b""}
    Reader(files, vocabulary(), {}).playbook("site.yml")
    with pytest.raises(PlaybookError, match="unknown task module 'mine'"):
        plays(text)


def test_short_names_of_a_plays_collections_are_left_to_the_node():
    plays("- hosts: all\n  collections: [mine.own]\n  tasks:\n    - whatever: {}\n")


def test_faults_in_roles_and_included_files_are_found_there():
    with pytest.raises(PlaybookError, match=r"^roles/r/handlers/main\.yml:1: unknown task module 'servise'"):
        plays(
            "- hosts: all\n  roles: [r]\n", roles__r__tasks__main="- ping:\n", roles__r__handlers__main="- servise:\n"
        )
    with pytest.raises(PlaybookError, match=r"^roles/r/tasks/sub\.yml:2: "):
        plays(
            "- hosts: all\n  tasks:\n    - include_role: {name: r}\n",
            roles__r__tasks__main="- import_tasks: sub.yml\n",
            roles__r__tasks__sub="- ping:\n- pingg:\n",
        )


def test_files_that_include_each_other_end():
    plays(
        "- hosts: all\n  tasks:\n    - include_tasks: a.yml\n",
        a="- include_tasks: b.yml\n",
        b="- include_tasks: a.yml\n",
    )
    with pytest.raises(PlaybookError, match="import each other"):
        plays("- import_playbook: a.yml\n", a="- import_playbook: site.yml\n")


@pytest.mark.parametrize(
    ("hosts", "given", "expected"),
    [
        ("'{{ target }}'", {"target": "web"}, ("web",)),
        ("'{{ target }}'", {"target": ["a", "b"]}, ("a,b",)),
        ("'{{ target }}'", {}, None),
        ("\"{{ target | default('db') }}\"", {}, ("db",)),
        ("\"{{ target | default('db', true) }}\"", {"target": "web"}, ("web",)),
        ("'web-{{ n }}:!x'", {"n": 1}, ("web-1:!x",)),
        ("'{% if a %}b{% endif %}'", {"a": 1}, None),
    ],
)
def test_hosts_from_extra_variables(hosts, given, expected):
    assert plays(f"- hosts: {hosts}\n", extra_vars=given)[0].hosts == expected


MERGED = """\
- hosts: all
  vars:
    common: &common {become: true, when: x is defined}
  tasks:
    - &base
      <<: *common
      name: Base
      copy: {src: a, dest: /b}
    - <<: [*base, {no_log: true}]
      copy: {content: a, dest: /c}
    - <<: *common
      include_role: name=here
"""


def test_what_is_merged_counts_as_if_it_stood_there() -> None:
    assert plays(MERGED, a="") == plays("- hosts: all\n  name: all\n")
    with pytest.raises(PlaybookError, match="two task modules"):
        plays("- hosts: all\n  tasks:\n    - &a {ping: }\n    - <<: *a\n      copy: {content: a, dest: /b}\n")
    with pytest.raises(PlaybookError, match="unknown task module"):
        plays(MERGED, roles__here__tasks__main="- pingg:\n")

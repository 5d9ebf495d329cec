"""Real playbooks through the real runner, without a server: events, exit codes, and what must not break it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmagentos.api.jobs import Inventory, JobEvent, LogLine, NodeJob, PlayStarted, Recap, TaskResult, TaskStarted
from llmagentos.fleet.node.jobdir import Exit, JobDirectory
from llmagentos.fleet.node.phases import Phase
from llmagentos.fleet.node.spec import runner_spec


class Run:
    """One run of a playbook for the host `web1`."""

    def __init__(self, root: Path, playbook: str, files: dict[str, str] | None = None, **options: Any) -> None:
        self.directory = JobDirectory(root / "job")
        self.bundle = self.directory.bundle
        for name, text in ({"site.yml": playbook} | (files or {})).items():
            path = self.bundle / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        hostvars = {"web1": {}, "web2": {}}
        job = NodeJob(1, 1, "web1", "", "site.yml", Inventory(hostvars=hostvars), **options)
        variables = {"llmagentos_modules_dir": str(root / "modules.d"), "llmagentos_python": sys.executable}
        self.directory.write_spec(runner_spec(job, home=str(root / "ansible"), variables=variables))
        self.done = subprocess.run(
            [sys.executable, "-P", "-m", "llmagentos_ansible", str(self.directory.root)],
            capture_output=True,
            timeout=110,
        )
        found = self.directory.exit()
        assert found is not None, self.done.stderr.decode()
        self.exit: Exit = found

    @property
    def events(self) -> list[JobEvent]:
        lines = self.directory.events.read_bytes().splitlines()
        return [msgspec.json.decode(line, type=JobEvent) for line in lines]

    def results(self) -> dict[str, list[TaskResult]]:
        found: dict[str, list[TaskResult]] = {}
        for event in self.events:
            if isinstance(event, TaskResult):
                found.setdefault(event.task, []).append(event)
        return found

    def logged(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, LogLine))


EVERYTHING = r"""
- name: Everything
  hosts: all
  gather_facts: false
  vars:
    greeting: 你好
  handlers:
    - name: Tell
      debug: {msg: "told in {{ llmagentos_modules_dir }}"}
  tasks:
    - name: Copy
      copy: {content: "{{ greeting }}\n", dest: "{{ playbook_dir }}/out/copied"}
      notify: Tell
    - name: Template
      template: {src: page.j2, dest: "{{ playbook_dir }}/out/page"}
    - name: Bytes
      shell: printf 'a\377\355\240\200b\n'; printf '\376' >&2
      changed_when: false
    - name: Loop
      command: echo {{ item.name }}
      loop: [{name: one}, {name: two}]
      loop_control: {label: "{{ item.name }}"}
      changed_when: item.name == 'two'
    - name: Not now
      command: /bin/false
      when: greeting == 'hello'
    - name: Ignored
      command: /bin/false
      ignore_errors: true
    - name: Secret
      command: echo hunter2
      no_log: true
    - name: Much
      command: head -c 3000000 /dev/zero --
      changed_when: false
    - name: Block
      block:
        - name: Fails
          fail: {msg: as it should}
      rescue:
        - name: Rescued
          debug: {var: greeting}
"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("everything")
    (root / "job/bundle/out").mkdir(parents=True)
    return Run(root, EVERYTHING, {"page.j2": "{% for n in [1, 2] %}{{ greeting }}{{ n }} {% endfor %}\n"}, diff=True)


def test_it_succeeds_with_what_ansible_counts(everything: Run) -> None:
    assert everything.done.returncode == 0, everything.done.stderr.decode()
    assert everything.exit.code == 0
    recap = everything.exit.recap["web1"]
    assert (recap.failed, recap.unreachable, recap.skipped, recap.rescued, recap.ignored) == (0, 0, 1, 1, 1)
    last = everything.events[-1]
    assert isinstance(last, Recap)
    assert last.hosts["web1"] == recap
    assert everything.directory.phase() is Phase.ENDED


def test_files_and_variables(everything: Run) -> None:
    assert (everything.bundle / "out/copied").read_text() == "你好\n"
    assert (everything.bundle / "out/page").read_text() == "你好1 你好2 \n"


def test_events_come_in_order_and_complete(everything: Run) -> None:
    events = everything.events
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], PlayStarted)
    started = [event for event in events if isinstance(event, TaskStarted)]
    assert [event.name for event in started][:3] == ["Copy", "Template", "Bytes"]
    assert [event.name for event in started if event.handler] == ["Tell"]


def test_diff(everything: Run) -> None:
    (change,) = everything.results()["Copy"][0].diff
    assert (change.before, change.after) == ("", "你好\n")


def test_bytes_that_are_no_text(everything: Run) -> None:
    (result,) = everything.results()["Bytes"]
    assert result.status == "ok"
    assert result.result["stdout"].startswith("a\ufffd")
    assert result.result["stdout"].endswith("b")


def test_items(everything: Run) -> None:
    results = everything.results()["Loop"]
    assert [(r.item, r.status) for r in results if r.is_item] == [("one", "ok"), ("two", "changed")]
    assert [r.status for r in results if not r.is_item] == ["changed"]


def test_states(everything: Run) -> None:
    found = {name: results[-1].status for name, results in everything.results().items()}
    assert (found["Not now"], found["Ignored"], found["Fails"], found["Rescued"]) == (
        "skipped",
        "ignored",
        "failed",
        "ok",
    )
    assert everything.results()["Rescued"][0].result == {"greeting": "你好"}


def test_secrets_are_not_told(everything: Run) -> None:
    assert b"hunter2" not in everything.directory.events.read_bytes()
    assert "no_log" in everything.results()["Secret"][0].result["censored"]


def test_much_output_is_cut(everything: Run) -> None:
    (result,) = everything.results()["Much"]
    assert result.status == "ok"
    assert "cut" in result.result["stdout"]
    assert len(msgspec.json.encode(result)) < 200_000


def test_check_changes_nothing(tmp_path: Path) -> None:
    play = "- hosts: all\n  gather_facts: false\n  tasks:\n    - copy: {content: x, dest: '{{ playbook_dir }}/made'}\n"
    run = Run(tmp_path, play, check=True, diff=True)
    assert run.exit.code == 0
    assert run.exit.recap["web1"].changed == 1
    assert not (run.bundle / "made").exists()


def test_extra_variables_tags_and_the_inventory_of_others(tmp_path: Path) -> None:
    play = (
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        "    - {name: A, debug: {msg: '{{ word }} {{ groups.all | sort | join(\",\") }}'}, tags: [a]}\n"
        "    - {name: B, debug: {msg: b}, tags: [b]}\n"
    )
    run = Run(tmp_path, play, extra_vars={"word": "词"}, tags=["a"])
    assert {name: r[0].result["msg"] for name, r in run.results().items()} == {"A": "词 web1,web2"}


def test_failed_is_2(tmp_path: Path) -> None:
    run = Run(tmp_path, "- hosts: all\n  gather_facts: false\n  tasks:\n    - command: /bin/false\n    - ping:\n")
    assert run.exit.code == run.done.returncode == 2
    assert run.exit.recap["web1"].failed == 1


def test_another_node_is_unreachable_from_here(tmp_path: Path) -> None:
    play = "- hosts: all\n  gather_facts: false\n  tasks:\n    - {name: There, ping: , delegate_to: web2}\n"
    run = Run(tmp_path, play)
    assert run.exit.code == 4
    (result,) = run.results()["There"]
    assert result.status == "unreachable"
    assert "each node runs its own tasks" in result.result["msg"]


def test_a_playbook_that_is_none(tmp_path: Path) -> None:
    run = Run(tmp_path, "- hosts: all\n  tasks: [\n")
    assert run.exit.code == 4
    assert "site.yml:3" in (run.exit.error or "")
    assert "YAML" in run.logged()


def test_the_users_configuration_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ansible.cfg").write_text("[defaults]\nstdout_callback = minimal\n")
    monkeypatch.setenv("ANSIBLE_CONFIG", str(tmp_path / "ansible.cfg"))
    monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "oneline")
    monkeypatch.setenv("LC_ALL", "POSIX")
    run = Run(tmp_path, "- hosts: all\n  gather_facts: false\n  tasks:\n    - {name: P, ping: }\n")
    assert run.exit.code == 0, run.done.stderr.decode()
    assert run.results()["P"][0].status == "ok"


def test_modules_beside_the_playbook_are_not_imported_by_the_runner(tmp_path: Path) -> None:
    play = "- hosts: all\n  gather_facts: false\n  tasks:\n    - ping:\n"
    run = Run(tmp_path, play, {"json.py": "raise SystemExit(7)\n", "ansible/__init__.py": "raise SystemExit(7)\n"})
    assert run.exit.code == 0


def test_a_spec_that_is_broken_is_told(tmp_path: Path) -> None:
    directory = JobDirectory(tmp_path)
    directory.bundle.mkdir()
    directory.spec.write_text("{")
    done = subprocess.run([sys.executable, "-m", "llmagentos_ansible", str(tmp_path)], capture_output=True, timeout=110)
    assert done.returncode == 250
    assert json.loads((tmp_path / "exit.json").read_bytes())["code"] == 250


def test_localhost_is_this_node(tmp_path: Path) -> None:
    play = "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - {name: Here, command: 'true'}\n"
    run = Run(tmp_path, play, local=True)
    assert run.exit.code == 0
    assert run.results()["Here"][0].host == "localhost"


def test_asynchronous_tasks(tmp_path: Path) -> None:
    play = (
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - {name: Later, command: echo late, async: 20, poll: 1}\n"
    )
    run = Run(tmp_path, play)
    assert run.exit.code == 0
    assert run.results()["Later"][0].result["stdout"] == "late"


PROMPTS = """\
- hosts: all
  gather_facts: false
  vars_prompt:
    - {name: colour, default: red}
    - {name: given, default: "{{ known }}"}
    - {name: template, unsafe: true}
    - {name: empty}
  tasks:
    - {name: Said, debug: {msg: "{{ [colour, given, template, empty, llmagentos_answers | default('none')] }}"}}
    - set_fact: {colour: blue}
    - {name: Set, debug: {var: colour}}
- hosts: all
  gather_facts: false
  vars_prompt: [{name: colour, default: red}]
  tasks:
    - {name: Again, debug: {var: colour}}
"""


def test_asynchronous_tasks_are_told_while_they_are_waited_for(tmp_path: Path) -> None:
    tasks = [
        "- {shell: sleep 5, async: 60, poll: 1}",
        "- {command: /bin/false, async: 60, poll: 1, ignore_errors: true}",
        "- {shell: sleep 20, async: 1, poll: 1, ignore_errors: true}",
    ]
    run = Run(tmp_path, "- hosts: all\n  gather_facts: false\n  tasks:\n" + "".join(f"    {each}\n" for each in tasks))
    assert run.exit.code == 0, run.events
    lines = [line for line in run.logged().splitlines() if line.startswith("ASYNC")]
    assert re.fullmatch(r"ASYNC POLL on web1: jid=j\d+\.\d+ started=(1|True) finished=(0|False)", lines[0])
    assert [line.split()[1] for line in lines if " POLL " not in line] == ["OK", "FAILED", "FAILED"]
    assert all(re.search(r" on web1: jid=j\d+\.\d+", line) for line in lines)


def test_answers_to_prompts_come_with_the_job(tmp_path: Path) -> None:
    answers = {
        "colour": [{"value": None, "salt": None}, {"value": "green", "salt": None}],
        "template": [{"value": "{{ 1 + 1 }}", "salt": None}],
        "empty": [{"value": "", "salt": None}],
    }
    run = Run(tmp_path, PROMPTS, extra_vars={"given": "by -e", "known": 1, "llmagentos_answers": answers})
    assert run.exit.code == 0, run.logged()
    assert run.results()["Said"][0].result == {"msg": ["red", "by -e", "{{ 1 + 1 }}", "", "none"]}
    assert run.results()["Set"][0].result == {"colour": "blue"}, "as weak as a play's variables"
    assert run.results()["Again"][0].result == {"colour": "blue"}
    assert "interactive" not in run.logged()


def test_a_prompt_that_nobody_answered_is_an_error(tmp_path: Path) -> None:
    run = Run(tmp_path, PROMPTS, extra_vars={"known": 1})
    assert run.exit.code == 1
    assert "-e template=..." in (run.exit.error or "")


def test_programs_of_tasks_do_not_get_the_runners_settings(tmp_path: Path) -> None:
    """So that an `ansible-playbook` that a task starts is as anywhere."""
    play = """\
- hosts: all
  gather_facts: false
  tasks:
    - shell: "env | grep -c ^ANSIBLE_"
      failed_when: false
      register: forked
    - shell: "env | grep -c ^ANSIBLE_"
      failed_when: false
      register: own_way
      vars: {llmagentos_fork_modules: false}
    - assert: {that: [forked.stdout == "0", own_way.stdout == "0"]}
"""
    assert Run(tmp_path, play).exit.code == 0


def test_where_a_task_failed_and_what_was_included_for_which_item(tmp_path: Path) -> None:
    play = """\
- hosts: all
  gather_facts: false
  tasks:
    - include_tasks: tasks/more.yml
      loop: [one, two]
    - ping:
      ignore_unreachable: true
      vars: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
    - command: /bin/false
"""
    run = Run(tmp_path, play, {"tasks/more.yml": "- fail: {msg: x}\n  ignore_errors: true\n"})
    assert run.exit.code == 2
    assert run.logged().splitlines() == [
        "included: tasks/more.yml for web1 => (item=one)",
        "included: tasks/more.yml for web1 => (item=two)",
        *["Origin: tasks/more.yml:1"] * 2,
        "Origin: site.yml:6",
        "...ignoring",
        "Origin: site.yml:9",
    ]


BECOME = """\
- hosts: all
  gather_facts: false
  become: true
  become_user: daemon
  become_method: su
  vars: {ansible_become_flags: -s /bin/sh}
  tasks:
    - {name: Who, command: id -un}
    - {name: Module, stat: {path: /etc/passwd}}
    - {name: Ourselves, command: id -un, become: false}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user without a password")
@pytest.mark.skipif(shutil.which("su") is None or not Path("/usr/bin/python3").exists(), reason="no su, no Python")
def test_another_user_who_may_not_use_our_interpreter(tmp_path: Path) -> None:
    run = Run(tmp_path, BECOME)
    assert run.exit.code == 0, run.logged()
    assert run.results()["Who"][0].result["stdout"] == "daemon"
    assert run.results()["Module"][0].result["stat"]["exists"]
    assert run.results()["Ourselves"][0].result["stdout"] == "root"


SLOW_WAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - {command: "true", async: 20, poll: 1}
"""


def test_verbose_lines_are_told_with_why_a_module_goes_the_slower_way(tmp_path: Path) -> None:
    (tmp_path / "quiet").mkdir()
    quiet, verbose = Run(tmp_path / "quiet", SLOW_WAY), Run(tmp_path, SLOW_WAY, verbosity=3)
    assert (quiet.exit.code, verbose.exit.code) == (0, 0)
    assert [line for line in quiet.logged().splitlines() if not line.startswith("ASYNC ")] == []
    assert "ansible.legacy.command does not run in a fork: it is asynchronous" in verbose.logged()


def test_warnings_and_errors_beside_results_are_told(tmp_path: Path) -> None:
    (tmp_path / "warned").mkdir()
    warned = Run(tmp_path / "warned", "- hosts: [all, elsewhere]\n  tasks: []\n")
    told = [(event.level, event.text) for event in warned.events if isinstance(event, LogLine)]
    assert told == [("warning", "Could not match supplied host pattern, ignoring: elsewhere")]
    nowhere = Run(tmp_path, SLOW_WAY, start_at_task="nope")
    (error,) = [event for event in nowhere.events if isinstance(event, LogLine)]
    assert (error.level, error.text.partition(" found")[0]) == ("error", 'No matching task "nope"')

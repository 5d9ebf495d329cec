"""Playbooks that span hosts: every node's runner comes to what ansible-playbook comes to.

`expected.json` of each scenario was written by ansible-playbook itself: with LLMAGENTOS_COMPARE=1 it is run again
and compared, and a missing file is written.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from support.lockstep import HOSTS, Runners, ansible_playbook, code_of_all, scenario

SCENARIOS = Path(__file__).parents[2] / "scenarios" / "plays"
COMPARE = os.environ.get("LLMAGENTOS_COMPARE") == "1"


def comparable(files: dict[str, str], unordered: tuple[str, ...] = ("deleg", "la")) -> dict[str, list[str]]:
    """Lines by file; sorted where several hosts write at once."""
    return {name: sorted(text.splitlines()) if name in unordered else text.splitlines() for name, text in files.items()}


@pytest.mark.parametrize("name", sorted(path.name for path in SCENARIOS.iterdir()))
def test_the_same_as_ansible_playbook(name: str, tmp_path: Path) -> None:
    files, expected = scenario(SCENARIOS / name), SCENARIOS / name / "expected.json"
    out = tmp_path / "out"
    if COMPARE or not expected.exists():
        out.mkdir()
        real = asdict(ansible_playbook(tmp_path / "real", files, out))
        if expected.exists():
            known = json.loads(expected.read_text())
            assert (real["codes"], real["recap"]) == (known["codes"], known["recap"])
            assert comparable(real["files"]) == comparable(known["files"])
        else:
            expected.write_text(json.dumps(real, indent=1) + "\n")
        out.rename(tmp_path / "real-out")
    out.mkdir()
    ran = Runners(tmp_path / "run", files, out).to_the_end(out)
    known = json.loads(expected.read_text())
    assert ran.recap == known["recap"], ran.errors
    assert code_of_all(list(ran.codes.values())) == known["codes"]["all"]
    assert comparable(ran.files) == comparable(known["files"])


PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - command: "true"
    - shell: "touch {{ out }}/begun-{{ inventory_hostname }}; sleep {{ 60 if inventory_hostname == 'c' else 0 }}"
    - shell: "echo {{ ansible_play_hosts }} >> {{ out }}/left-{{ inventory_hostname }}"
"""


def test_a_node_that_is_gone_counts_as_unreachable(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    runners = Runners(tmp_path / "run", {"site.yml": PLAY.encode()}, out)
    deadline = time.monotonic() + 60
    while not (out / "begun-c").exists():
        assert time.monotonic() < deadline
        runners.carry()
    runners.processes["c"].kill()
    ran = runners.to_the_end(out)
    assert ran.codes == {"a": 0, "b": 0, "c": None}
    assert {host: ran.recap[host]["ok"] for host in ("a", "b")} == {"a": 3, "b": 3}
    assert ran.files["left-a"] == ran.files["left-b"] == "[a, b]\n"


def test_what_a_node_says_of_others_does_not_count(tmp_path: Path) -> None:
    """It tells of its own host alone; it can neither answer for others nor have them execute anything, nor is
    what it says a template.
    """
    out = tmp_path / "out"
    out.mkdir()
    play = """\
- hosts: all
  gather_facts: false
  tasks:
    - shell: "echo '{{ '{{' }} lookup(\\"pipe\\", \\"touch OUT/evil\\") {{ '}}' }}'"
      register: told
    - copy:
        content: "{{ hostvars['c'].told.stdout }}"
        dest: "{{ out }}/{{ inventory_hostname }}"
""".replace("OUT", str(out))
    runners = Runners(tmp_path / "run", {"site.yml": play.encode()}, out)
    forged = {"host": "a", "n": 1, "task": "site.yml:4 shell", "result": json.dumps({"fields": {}, "result": {}})}
    asked = {"kind": "ask", "host": "a", "n": 1, "item": 0, "attempt": 1, "to": "b"}
    for share in ({"kind": "result", **forged}, asked, {"kind": "answer", **asked, "result": "{}"}):
        runners.tell({"id": 1, "from": "c", "share": share})
    ran = runners.to_the_end(out)
    assert ran.codes == dict.fromkeys(HOSTS, 0), ran.errors
    assert {host: found["ok"] for host, found in ran.recap.items()} == dict.fromkeys(HOSTS, 2)
    assert "lookup" in ran.files["a"]
    assert "evil" not in ran.files


def test_a_node_cannot_have_others_write_what_the_task_does_not_say(tmp_path: Path) -> None:
    """A file of another node goes where this node's own copy of the task says, or the run ends."""
    out = tmp_path / "out"
    out.mkdir()
    play = """\
- hosts: all
  gather_facts: false
  tasks:
    - fetch: {src: /etc/hosts, dest: fetched}
"""
    for path, node, told in (
        ("site.yml", "c", "'site.yml', which this task of c does not say"),
        ("fetched/b/etc/hosts", "c", "'fetched/b/etc/hosts', which this task of c does not say"),
        ("fetched/c/etc/hosts", "b", ""),  # a node of its own that has nothing to say of this task
    ):
        root = tmp_path / node / path
        runners = Runners(root, {"site.yml": play.encode()}, out)
        (root / "a" / "fetched").mkdir(exist_ok=True)
        (root / "a" / "fetched" / "0").write_text("forged")
        share = {"kind": "file", "host": "c", "n": 1, "path": path, "digest": "0"}
        with (root / "a" / "peers.jsonl").open("a") as peers:
            peers.write(json.dumps({"id": 1, "from": node, "share": share}) + "\n")
        ran = runners.to_the_end(out)
        assert told in ran.errors.get("a", ""), ran.errors
        assert (ran.codes["a"] != 0) == bool(told)
        assert "forged" not in (root / "a" / "bundle" / "site.yml").read_text()


def test_nodes_that_do_not_agree_do_not_go_on_together(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    play = PLAY.replace("60", "0")
    other = {"c": {"site.yml": play.replace('command: "true"', "debug: {msg: other}").encode()}}
    ran = Runners(tmp_path / "run", {"site.yml": play.encode()}, out, other=other).to_the_end(out)
    assert "do not agree" in "".join(ran.errors.values())
    assert "left-c" not in ran.files  # whoever notices first ends; for the others it is gone then

"""`llmctl run`, `exec` and `lint` against a real server with a real node."""

from __future__ import annotations

import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from support.files import that_hold
from support.node import NodeProcess
from support.server import ServerProcess
from support.system import wait_for

PASSWORD = "correct horse battery staple"
SALT = Path(sys.prefix) / "tools" / "salt" / "bin"


def encrypted(text: str, password: Path, label: str) -> str:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-vault"),
            "encrypt",
            "--vault-id",
            f"{label}@{password}",
            "--output",
            "-",
        ],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_vault_passwords_reach_the_node_and_are_kept_nowhere(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    play = tmp_path / "play"
    (play / "group_vars").mkdir(parents=True)
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    (play / "group_vars" / "all.yml").write_text(encrypted("secret: opened\n", password, "prod"))
    shown = '- hosts: all\n  gather_facts: false\n  tasks:\n    - debug: {msg: "{{ secret }}"}\n'
    (play / "site.yml").write_text(shown)
    given = ["--vault-id", f"prod@{password}"]
    ran = server.llmctl("run", str(play / "site.yml"), *given)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert '"msg": "opened"' in ran.stdout
    refused = server.llmctl("run", str(play / "site.yml"))
    assert refused.returncode != 0
    assert "vault" in (refused.stdout + refused.stderr).lower()
    assert that_hold(PASSWORD, server.directory) == []
    wait_for(lambda: not that_hold(PASSWORD, node.state))  # it tidies up once the server knows how the job ended
    with sqlite3.connect(next(server.directory.rglob("llmagentos.db"))) as database:
        kept = database.execute("SELECT inventory FROM jobs").fetchall()
    assert all('"sealed"' not in inventory for (inventory,) in kept), "not even sealed ones, once a job has ended"


PROMPTS = """\
- hosts: all
  gather_facts: false
  vars_prompt:
    - {name: who, prompt: Your name, private: false}
    - {name: word, confirm: true}
    - {name: env, default: prod, private: false}
    - {name: login, encrypt: sha512_crypt, salt_size: 8}
  tasks:
    - debug: {msg: "{{ who }} {{ word | length }} {{ env }}"}
    - debug: {msg: "{{ login.split('$')[1] }} {{ login == 'again' | password_hash('sha512', login.split('$')[-2]) }}"}
"""


def typed(arguments: list[str], server: ServerProcess, answers: list[bytes]) -> tuple[int, str]:
    """The exit code and the output of `llmctl` on a terminal where `answers` are typed, each after a question."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(server.directory)
        os.execvpe("llmctl", ["llmctl", *arguments], server.env)
    shown, asked = b"", 0
    with open(terminal, "r+b", buffering=0) as file:
        while True:
            try:
                shown += file.read(4096)
            except OSError:  # the terminal is closed: it has ended
                break
            if answers and shown.count(b": ", asked) and shown.endswith(b": "):
                asked = len(shown)
                file.write(answers.pop(0) + b"\n")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_what_a_playbook_asks_for_is_asked_before_and_kept_nowhere(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    play = tmp_path / "site.yml"
    play.write_text(PROMPTS)
    answers = [b"ann", PASSWORD.encode(), b"another", PASSWORD.encode(), PASSWORD.encode(), b"", b"again"]
    code, shown = typed(["run", str(play)], server, answers)
    assert code == 0, shown
    assert f'"msg": "ann {len(PASSWORD)} prod"' in shown
    assert '"msg": "6 True"' in shown
    assert "the answers are not the same" in shown
    assert PASSWORD not in shown
    assert that_hold(PASSWORD, server.directory) == []
    wait_for(lambda: not that_hold(PASSWORD, node.state))  # it tidies up once the server knows how the job ended
    given = server.llmctl("run", str(play), "-e", "who=bob", "-e", "word=x", "-e", "login=$6$salt$x")
    assert '"msg": "bob 1 prod"' in given.stdout
    refused = server.llmctl("run", str(play), "-e", "who=bob", "-e", "login=x")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "site.yml:5: vars_prompt asks for 'word', and nobody is here to answer" in refused.stderr
    assert "-e word=" in refused.stderr
    step = server.llmctl("run", str(play), "--step")
    assert step.returncode == 2
    assert "--step asks before each task" in step.stderr


def test_exec_tells_as_ansible_does(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    assert node.name == "web1"
    said = server.llmctl("exec", "all", "--", "echo one; echo {{ two }} >&2")
    assert (said.returncode, said.stdout) == (0, "web1 | CHANGED | rc=0 >>\none\n{{ two }}\n")
    failed = server.llmctl("exec", "web1", "--", "sh", "-c", "exit 3")
    assert (failed.returncode, failed.stdout) == (2, "web1 | FAILED | rc=3 >>\nnon-zero return code\n")
    path = tmp_path / "made"
    made = server.llmctl("exec", "web1", "-m", "file", "-a", f"path={path} state=touch mode=0600", "-o")
    assert made.returncode == 0
    assert made.stdout.startswith("web1 | CHANGED => {")
    assert path.stat().st_mode & 0o777 == 0o600
    document = json.loads(
        server.llmctl("exec", "web1", "-m", "stat", "-a", json.dumps({"path": str(path)}), "--json").stdout
    )
    assert document["job"]["summary"]["state"] == "succeeded"
    results = [each["event"] for each in document["events"] if each["event"]["type"] == "task_result"]
    assert results[0]["result"]["stat"]["exists"] is True
    fetched = server.llmctl("exec", "web1", "-m", "fetch", "-a", f"src={path} dest=got/ flat=yes")
    assert fetched.returncode == 0, fetched.stderr
    assert (server.directory / "got" / "made").read_bytes() == b""
    unknown = server.llmctl("exec", "web1", "-m", "servce", "-a", "name=x")
    assert unknown.returncode == 2
    assert "the nearest is 'service'" in unknown.stderr


def test_exec_takes_the_files_along_that_it_names(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    here, there = server.directory, tmp_path / "there"
    there.mkdir()
    (here / "app.conf").write_text("port = 80\n")
    (here / "app.conf.j2").write_text("port = {{ port }} on {{ inventory_hostname }}\n")
    (tmp_path / "a script.sh").write_text("#!/bin/sh\necho $1 from $2\n")
    (here / "tree" / "sub").mkdir(parents=True)
    (here / "tree" / "sub" / "one").write_text("1")
    shutil.make_archive(str(here / "pack"), "tar", here / "tree")
    for module, options in (
        ("copy", f"src=./app.conf dest={there}/copied mode=0640"),
        ("template", f"src={here}/app.conf.j2 dest={there}/filled"),
        ("unarchive", json.dumps({"src": "pack.tar", "dest": str(there)})),
        ("copy", f"src=tree dest={there}/whole/"),
    ):
        done = server.llmctl("exec", "web1", "-m", module, "-a", options, "-e", "port=8080")
        assert done.returncode == 0, done.stdout + done.stderr
    assert ((there / "copied").read_text(), (there / "copied").stat().st_mode & 0o777) == ("port = 80\n", 0o640)
    assert (there / "filled").read_text() == "port = 8080 on web1\n"
    assert (there / "sub" / "one").read_text() == (there / "whole" / "tree" / "sub" / "one").read_text() == "1"
    ran = server.llmctl("exec", "web1", "-m", "script", "-a", f"chdir=/ '{tmp_path}/a script.sh' hello 'the node'")
    assert (ran.returncode, ran.stdout.splitlines()[1:2]) == (0, ["hello from the node"]), ran.stdout + ran.stderr
    gone = server.llmctl("exec", "web1", "-m", "copy", "-a", "src=app.cnf dest=/x")
    assert gone.returncode == 2
    assert "there is no file 'app.cnf' here" in gone.stderr
    assert "remote_src" in gone.stderr


def test_run_again_where_it_failed_and_json_lines(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    play = tmp_path / "site.yml"
    play.write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - {name: First, command: 'true'}\n"
        f"    - {{name: Second, command: test -e {tmp_path}/there}}\n"
    )
    assert server.llmctl("run", str(play)).returncode == 2
    (tmp_path / "there").touch()
    again = server.llmctl("run", str(play), "--limit", "@retry", "--start-at-task", "Second", "--json-lines")
    assert again.returncode == 0, again.stderr
    assert "again on web1" in again.stderr
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    assert [each["event"]["task"] for each in lines[:-1] if each["event"]["type"] == "task_result"] == ["Second"]
    assert lines[-1]["job"]["summary"]["exit_code"] == 0
    checked = server.llmctl("lint", str(play), "--json")
    assert (checked.returncode, json.loads(checked.stdout)) == (0, [])


MANIFEST = """\
file { 'DIR/made': ensure => file, content => "for ${facts['who']}\\n" }
exec { '/bin/false': }
notify { 'after': require => Exec['/bin/false'] }
"""


@pytest.mark.skipif(shutil.which("puppet") is None, reason="puppet is not installed: scripts/test-tools.sh")
def test_puppet_manifests(server: ServerProcess, node: NodeProcess, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    manifest = tmp_path / "site" / "site.pp"
    manifest.write_text(MANIFEST.replace("DIR", str(tmp_path)))
    checked = server.llmctl("run", str(manifest), "-e", "who=web1", "--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert not (tmp_path / "made").exists()
    assert f"TASK [File[{tmp_path}/made]]" in checked.stdout
    done = server.llmctl("run", str(manifest), "-e", "who=web1")
    assert done.returncode == 2
    assert (tmp_path / "made").read_text() == "for web1\n"
    assert "ok=1    changed=1    unreachable=0    failed=1    skipped=1" in done.stdout


STATES = """\
DIR/made:
  file.managed:
    - contents: for {{ pillar['who'] }}
/bin/false:
  cmd.run: []
cat /proc/[0-9]*/cmdline > DIR/arguments || true:
  cmd.run: []
never:
  test.nop:
    - require: [{cmd: /bin/false}]
"""


@pytest.mark.skipif(not (SALT / "salt-call").exists(), reason="salt is not installed: scripts/test-tools.sh")
def test_salt_states(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("PATH", f"{SALT}:/usr/bin:/bin")
    server: ServerProcess = request.getfixturevalue("server")
    request.getfixturevalue("node")
    states = tmp_path / "states"
    states.mkdir()
    (states / "web.sls").write_text(STATES.replace("DIR", str(tmp_path)))
    (states / "pillar").mkdir()
    (states / "pillar" / "top.sls").write_text("base: {'*': [own]}\n")
    (states / "pillar" / "own.sls").write_text("who: nobody\n")
    (tmp_path / "answers.json").write_text(json.dumps({"who": PASSWORD}))
    done = server.llmctl("run", str(states), "-e", f"@{tmp_path}/answers.json")
    assert done.returncode == 2, done.stdout + done.stderr
    assert (tmp_path / "made").read_text() == f"for {PASSWORD}\n", "what was said wins over the states' own pillar"
    assert b"salt-call" in (arguments := (tmp_path / "arguments").read_bytes())
    assert PASSWORD.encode() not in arguments
    assert "ok=2    changed=2    unreachable=0    failed=1    skipped=1" in done.stdout

"""`llmctl exec`: what is asked for, and how answers are told."""

from __future__ import annotations

import msgspec
import pytest
import yaml

from llmagentos.api.jobs import Difference, JobRecord, TaskResult
from llmagentos.cli.adhoc import Answers, Unsafe, _Dumper, _title, answer, exec_, task
from llmagentos.cli.programs import exec_ as program
from llmagentos.core.errors import InvalidInput


def result(status: str, action: str = "shell", **found: object) -> TaskResult:
    return TaskResult(seq=1, at=0.0, host="web1", task="ad hoc", action=action, status=status, result=found)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None, ("uptime | wc",)), ("shell", "uptime | wc")),
        ((None, None, ("echo", "a b", "$HOME")), ("shell", "echo 'a b' '$HOME'")),
        ((None, "uptime", ()), ("command", "uptime")),
        (("service", "name=nginx state=restarted", ()), ("service", "name=nginx state=restarted")),
        (("copy", '{"dest": "/x", "content": "a b"}', ()), ("copy", {"dest": "/x", "content": "a b"})),
        (("ping", None, ()), ("ping", {})),
    ],
)
def test_what_is_asked_for(given: tuple, expected: tuple) -> None:
    assert task(*given) == expected


@pytest.mark.parametrize("given", [(None, None, ()), ("ping", None, ("ls",)), ("copy", "{broken", ())])
def test_what_cannot_be_asked_for(given: tuple) -> None:
    with pytest.raises(InvalidInput):
        task(*given)


def test_braces_of_a_command_are_no_template() -> None:
    _, text = task(None, None, ("docker ps --format '{{.Names}}'",))
    assert isinstance(text, Unsafe)
    assert yaml.dump([text], Dumper=_Dumper).startswith("- !unsafe ")
    assert not isinstance(task(None, None, ("false",))[1], Unsafe)


def test_a_job_is_named_after_its_task() -> None:
    assert _title("shell", "restart 'nginx'; ls /tmp") == "exec-shell-restart-nginx-ls-tmp"
    assert len(_title("shell", "x" * 500)) < 70


def test_answers_as_ansible_tells_them() -> None:
    assert answer(result("changed", rc=0, stdout="one", stderr="two")) == "web1 | CHANGED | rc=0 >>\none\ntwo"
    assert answer(result("failed", rc=3, stdout="", msg="non-zero return code")) == (
        "web1 | FAILED | rc=3 >>\nnon-zero return code"
    )
    assert answer(result("changed", rc=0, stdout="a\nb"), one_line=True) == "web1 | CHANGED | rc=0 >> a\\nb"
    assert answer(result("ok", "ping", ping="pong"), one_line=True) == 'web1 | SUCCESS => {"ping":"pong"}'
    assert answer(result("unreachable", msg="gone"), one_line=True) == 'web1 | UNREACHABLE! => {"msg":"gone"}'
    assert answer(result("failed", "copy", msg="no")).startswith("web1 | FAILED => {\n")


def test_differences_come_before_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    event = result("changed", "copy", changed=True)
    told = JobRecord(1, "web1", msgspec.structs.replace(event, diff=[Difference("old\n", "new\n", "/x", "/x")]))
    Answers().show(told)
    said = capsys.readouterr().out
    assert said.startswith("--- before: /x\n+++ after: /x\n@@ -1 +1 @@\n-old\n+new\n"), said
    assert 'web1 | CHANGED => {\n    "changed": true\n}\n' in said
    Answers(one_line=True).show(told)
    assert capsys.readouterr().out == 'web1 | CHANGED => {"changed":true}\n'


def test_the_other_command_of_this_name() -> None:
    assert exec_.make_context("exec", ["--agent", "x", "--", "ls"]).command is program
    assert exec_.make_context("exec", ["web", "--", "ls", "--agent"]).command is exec_

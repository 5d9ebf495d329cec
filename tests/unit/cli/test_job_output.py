"""What `llmctl run` prints: an Ansible user's eyes are at home."""

from __future__ import annotations

from typing import Any

import pytest

from llmagentos.api.jobs import (
    Difference,
    JobHost,
    JobRecord,
    LogLine,
    PlayStarted,
    Stats,
    TaskResult,
    TaskStarted,
)
from llmagentos.cli.job_output import Printer, diff_lines, recap, result_line


def result(host: str = "web1", **more: Any) -> TaskResult:
    return TaskResult(**({"seq": 1, "at": 0.0, "host": host, "task": "t", "status": "ok"} | more))


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (result(), "ok: [web1]"),
        (result(status="changed"), "changed: [web1]"),
        (result(status="skipped"), "skipping: [web1]"),
        (result(status="changed", is_item=True, item="a"), "changed: [web1] => (item=a)"),
        (result(is_item=True, item={"k": 1}), 'ok: [web1] => (item={"k": 1})'),
        (result(delegated_to="db1"), "ok: [web1 -> db1]"),
        (result(status="failed", result={"rc": 1, "msg": "no"}), 'fatal: [web1]: FAILED! => {"msg": "no", "rc": 1}'),
        (result(status="ignored", result={}), "fatal: [web1]: FAILED! => {}"),
        (result(status="failed", is_item=True, item="b", result={}), "failed: [web1] (item=b) => {}"),
        (result(status="unreachable", result={"msg": "x"}), 'fatal: [web1]: UNREACHABLE! => {"msg": "x"}'),
        (result(action="debug", result={"msg": "你好"}), 'ok: [web1] => {\n    "msg": "你好"\n}'),
    ],
)
def test_lines_of_results(event, expected):
    assert result_line(event) == expected


def test_verbose_shows_results():
    assert result_line(result(result={"stdout": "x"}), 1) == 'ok: [web1] => {"stdout": "x"}'


def printed(capsys, events, *, hosts: int) -> str:
    printer = Printer(hosts=hosts)
    for index, (node, event) in enumerate(events):
        printer.show(JobRecord(index, node, event))
    return "\n".join(line.rstrip("*").rstrip() for line in capsys.readouterr().out.splitlines())


def task(name: str, **more: Any) -> TaskStarted:
    return TaskStarted(seq=1, at=0.0, name=name, **more)


def test_one_node_reads_like_ansible_playbook(capsys):
    out = printed(
        capsys,
        [
            ("a", PlayStarted(seq=1, at=0.0, name="all")),
            ("a", task("one")),
            ("a", result("a", is_item=True, item=1)),
            ("a", result("a", is_item=True, item=2)),
            ("a", result("a")),
            ("a", task("one")),
            ("a", result("a", status="ignored", result={})),
            ("a", task("h", handler=True)),
            ("a", result("a", status="changed")),
            ("a", LogLine(seq=1, at=0.0, text="skipping: no hosts matched")),
        ],
        hosts=1,
    )
    assert out.split("\n") == [
        "",
        "PLAY [all]",
        "",
        "TASK [one]",
        "ok: [a] => (item=1)",
        "ok: [a] => (item=2)",
        "",
        "TASK [one]",
        "fatal: [a]: FAILED! => {}",
        "...ignoring",
        "",
        "RUNNING HANDLER [h]",
        "changed: [a]",
        "skipping: no hosts matched",
    ]


def test_nodes_that_run_beside_each_other_share_headings_while_they_can(capsys):
    play = PlayStarted(seq=1, at=0.0, name="all")
    out = printed(
        capsys,
        [
            ("a", play),
            ("b", play),
            ("a", task("one")),
            ("b", task("one")),
            ("a", result("a")),
            ("b", result("b")),
            ("a", task("two")),
            ("a", result("a")),
            ("b", task("two")),
            ("b", result("b")),
        ],
        hosts=2,
    )
    assert [line for line in out.split("\n") if line] == [
        "PLAY [all]",
        "TASK [one]",
        "ok: [a]",
        "ok: [b]",
        "TASK [two]",
        "ok: [a]",
        "ok: [b]",
    ]


def test_warnings_go_to_stderr(capsys):
    Printer(hosts=2).show(JobRecord(1, "a", LogLine(seq=1, at=0.0, level="warning", text="careful")))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "[a] [WARNING]: careful\n")


def test_differences():
    assert list(diff_lines(Difference("a\n", "b\n", after_header="/etc/x"))) == [
        "--- before",
        "+++ after: /etc/x",
        "@@ -1 +1 @@",
        "-a",
        "+b",
        "",
    ]
    assert list(diff_lines(Difference(prepared="+x\n"))) == ["+x", ""]


def test_the_recap(capsys):
    recap([JobHost("web1", "failed", recap=Stats(ok=2, failed=1)), JobHost("web2", "cancelled", message="by me")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("PLAY RECAP ***")
    assert " ".join(lines[2].split()) == "web1 : ok=2 changed=0 unreachable=0 failed=1 skipped=0 rescued=0 ignored=0"
    assert lines[3].startswith("web2 ") and lines[3].endswith(": cancelled: by me")

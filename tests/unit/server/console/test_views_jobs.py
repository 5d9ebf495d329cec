"""What several nodes did comes together by task; counts are Ansible's; long texts are folded and cut."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.jobs import (
    Difference,
    Job,
    JobHost,
    JobRecord,
    JobSpec,
    JobSummary,
    LogLine,
    PlayStarted,
    Recap,
    Stats,
    TaskResult,
    TaskStarted,
)
from llmagentos.server.console.views import diff, jobs
from llmagentos.server.console.views.block import MAX_TEXT, block, first_line
from llmagentos.server.console.words import Translate


def records(*parts: tuple[str, Any]) -> list[JobRecord]:
    return [JobRecord(i, node, make(seq=i, at=float(i))) for i, (node, make) in enumerate(parts, 1)]


def play(name: str) -> Any:
    return lambda **at: PlayStarted(name=name, **at)


def task(name: str, **more: Any) -> Any:
    return lambda **at: TaskStarted(name=name, **more, **at)


def result(host: str, status: Any, **more: Any) -> Any:
    return lambda **at: TaskResult(host=host, task="", status=status, **more, **at)


def job(hosts: list[JobHost], waiting: list[str] | None = None) -> Job:
    summary = JobSummary(1, "site.yml", "running", 1.0, "admin:li", [host.node for host in hosts])
    return Job(summary, JobSpec("0" * 64, "site.yml"), hosts, waiting or [])


def test_tasks_of_nodes_come_together(t: Translate) -> None:
    a = [play("web"), task("copy"), result("a", "ok"), task("copy"), result("a", "changed")]
    a += [task("restart", handler=True), result("a", "ok")]
    b = [play("web"), task("copy"), result("b", "failed", result={"msg": "no space"})]
    both = records(*(("a", event) for event in a), *(("b", event) for event in b))
    (shown,) = jobs.plays(both, t)
    assert [(task.name, [(r.host, r.status) for r in task.results]) for task in shown.tasks] == [
        ("copy", [("a", "ok"), ("b", "failed")]),
        ("copy", [("a", "changed")]),
        ("Handler: restart", [("a", "ok")]),
    ]
    assert shown.tasks[0].results[1].message == "no space"


def test_lines_before_the_first_task_are_kept(t: Translate) -> None:
    said = records(("a", lambda **at: LogLine(level="warning", text="beware", **at)), ("a", play("web")))
    (shown,) = jobs.plays(said, t)
    assert shown.tasks[0].results[0].message == "beware"


def test_a_cut_log_begins_in_the_middle_of_a_task(t: Translate) -> None:
    (shown,) = jobs.plays([JobRecord(500, "a", TaskResult(seq=9, at=1.0, host="a", task="copy", status="ok"))], t)
    assert [task.name for task in shown.tasks] == ["copy"]
    page = jobs.page(job([JobHost("a", "running")]), [JobRecord(500, "a", Recap(seq=9, at=1.0, hosts={}))], t)
    assert page["cut"] == 1


def test_counts_while_it_runs_are_as_in_the_recap(t: Translate) -> None:
    both = records(
        ("a", play("web")),
        ("a", task("x")),
        ("a", result("a", "changed")),
        ("a", result("a", "ok", is_item=True, item="curl")),
        ("a", result("a", "ignored")),
        ("a", result("a", "skipped")),
    )
    hosts = [JobHost("a", "running"), JobHost("b", "succeeded", recap=Stats(ok=4)), JobHost("c", "queued", 2)]
    page = jobs.page(job(hosts, ["c"]), both, t)
    assert [(row["recap"]["ok"], row["recap"]["changed"]) for row in page["rows"]] == [(2, 1), (4, 0), (0, 0)]
    assert page["recap_columns"] == ["ok", "changed", "failed", "skipped", "ignored"]
    assert "away" in page["rows"][2]["note"]


def test_an_item_is_named_and_output_shown_once(t: Translate) -> None:
    failed = {"msg": "no", "stdout": "out\n", "stderr": "no\n", "rc": 1, "stdout_lines": ["out"]}
    said = records(("a", task("x")), ("a", result("a", "failed", is_item=True, item={"n": 1}, result=failed)))
    shown = jobs.plays(said, t)[0].tasks[0].results[0]
    assert shown.message == '{"n":1}: no'
    assert [(block.label, block.text) for block in shown.blocks] == [
        ("Output", "out"),
        ("Errors", "no"),
        ("Result", '{\n  "rc": 1\n}'),
    ]


def test_differences() -> None:
    shown = diff.lines(Difference("a\nb\n", "a\nc\n", "old", "new"))
    assert [(line.look, line.text) for line in shown] == [
        ("", "--- old"),
        ("", "+++ new"),
        ("", "@@ -1,2 +1,2 @@"),
        ("", " a"),
        ("remove", "-b"),
        ("add", "+c"),
    ]
    assert len(diff.lines(Difference(prepared="+x\n" * 5000))) == diff.MAX_LINES + 1


@given(st.text())
def test_texts_are_never_longer_than_the_limits(text: str) -> None:
    assert len(first_line(text)) <= 202
    assert len(block("", text * 50).text) <= MAX_TEXT + 2

"""A page at a time, and a job on a thousand nodes."""

from __future__ import annotations

import pytest

from llmagentos.api.jobs import Job, JobHost, JobRecord, JobSpec, JobSummary, PlayStarted, TaskResult, TaskStarted
from llmagentos.server.console.paging import page
from llmagentos.server.console.views import jobs
from llmagentos.server.console.views.jobs import MAX_RESULTS, Chosen
from llmagentos.server.console.words import Translate


@pytest.mark.parametrize(
    ("number", "shown", "previous", "following"),
    [
        (None, (1, 10), None, "?filter=os%3Dx&page=2"),
        ("2", (11, 20), "?filter=os%3Dx&page=1", "?filter=os%3Dx&page=3"),
        ("3", (21, 25), "?filter=os%3Dx&page=2", None),
        ("99", (21, 25), "?filter=os%3Dx&page=2", None),
        ("0", (1, 10), None, "?filter=os%3Dx&page=2"),
        ("-1", (1, 10), None, "?filter=os%3Dx&page=2"),
        ("٣", (1, 10), None, "?filter=os%3Dx&page=2"),
        ("9" * 99, (1, 10), None, "?filter=os%3Dx&page=2"),
    ],
)
def test_a_page_of_a_list(
    number: str | None, shown: tuple[int, int], previous: str | None, following: str | None
) -> None:
    found = page(range(25), number, {"filter": "os=x", "state": ""}, size=10)
    assert (found.first, found.last, found.total) == (*shown, 25)
    assert list(found.items) == list(range(shown[0] - 1, shown[1]))
    assert (found.previous, found.next) == (previous, following)


def test_nothing_is_one_page() -> None:
    found = page([], "3", {})
    assert (found.first, found.last, found.total, found.previous, found.next) == (0, 0, 0, None, None)


def big() -> Job:
    hosts = [JobHost(f"n{number:04}", "failed" if number == 777 else "succeeded") for number in range(1000)]
    summary = JobSummary(1, "site.yml", "failed", 1.0, "admin:li", [host.node for host in hosts])
    return Job(summary, JobSpec("0" * 64, "site.yml"), hosts)


def test_of_many_nodes_those_in_trouble_come_first(t: Translate) -> None:
    shown = jobs.page(big(), [], t)
    assert [row["node"] for row in shown["rows"]][:3] == ["n0777", "n0000", "n0001"]
    assert len(shown["rows"]) == 100
    assert shown["states_of_nodes"] == [("succeeded", 999), ("failed", 1)]
    assert [row["node"] for row in jobs.page(big(), [], t, chosen=Chosen("failed"))["rows"]] == ["n0777"]
    assert [row["node"] for row in jobs.page(big(), [], t, chosen=Chosen(node="n0003"))["rows"]] == ["n0003"]


def test_of_many_results_those_that_matter_are_shown_and_the_others_counted(t: Translate) -> None:
    records = []
    for number in range(300):
        node = f"n{number:03}"
        status = "failed" if number == 200 else "changed" if number == 250 else "ok"
        happened = [
            PlayStarted(seq=1, at=1.0, name="web"),
            TaskStarted(seq=2, at=1.0, name="copy"),
            TaskResult(seq=3, at=1.0, host=node, task="copy", status=status),
        ]
        records += [JobRecord(len(records) + 1 + i, node, event) for i, event in enumerate(happened)]
    ((task,),) = [play.tasks for play in jobs.plays(records, t)]
    assert len(task.results) == MAX_RESULTS
    assert {"n200", "n250"} <= {result.host for result in task.results}
    assert task.more == {"ok": 300 - MAX_RESULTS}

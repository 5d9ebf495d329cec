"""The pages of schedules and job templates, what they do, and what a job's page shows of its waiting."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from llmagentos.api import jobs
from llmagentos.api.job_control import Approval, Batch, Waiting
from llmagentos.api.job_files import JobFile
from llmagentos.api.schedules import Fire, Schedule, ScheduleSpec, TemplateUse
from llmagentos.api.templates import BadParameter, Parameter, Template, TemplateSpec
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import Conflict, Forbidden
from llmagentos.core.i18n import LANGUAGES
from llmagentos.security.identity import Identity, Kind
from llmagentos.server.console.render import LANGUAGE_COOKIE, Pages
from llmagentos.server.console.views import jobs as views
from llmagentos.server.endpoint import Call
from llmagentos.server.routes import schedule_pages
from llmagentos.server.routes.job_pages import JobSources, endpoints
from llmagentos.server.routes.schedule_pages import ScheduleSources

HOSTILE = "<script>alert(1)</script>\"'&"
ADMIN, VIEWER = Identity(Kind.ADMIN, "ann"), Identity(Kind.VIEWER, "vic")
SPEC = jobs.JobSpec("0" * 64, HOSTILE)
SUMMARY = jobs.JobSummary(7, HOSTILE, "waiting_approval", 1.0, HOSTILE, ["n1"], priority=3, origin="schedule:s")
JOB = jobs.Job(SUMMARY, SPEC, [])
ASKED = [
    Parameter("release", label=HOSTILE, help=HOSTILE, regex="v.*", default=HOSTILE),
    Parameter("count", "int", min=1, max=5),
    Parameter("ratio", "float", required=False),
    Parameter("force", "bool", default=True),
    Parameter("colour", "choice", choices=["blue", HOSTILE]),
    Parameter("zones", "multichoice", choices=["a", "b"], default=["a"]),
    Parameter("token", "secret"),
]
TEMPLATE = Template("deploy", 2, TemplateSpec(SPEC, HOSTILE, ASKED), 1.0, HOSTILE)
FILES = [JobFile(1, "n1", "got/n1/etc/hosts", "/etc/hosts", "0" * 64, 2048, 1.0)]
SCHEDULES = [
    Schedule("nightly", ScheduleSpec("0 2 * * *", zone="Asia/Tokyo", job=SPEC), False, 1.0, HOSTILE, "x", [99.0], []),
    Schedule("often", ScheduleSpec(None, 60.0, template=TemplateUse("deploy")), True, 1.0, "x", "x", [], [
        Fire(1.0, 1.0, None, HOSTILE)]),
]  # fmt: skip


class Done:
    """What was asked of the server; `refuse` is raised instead."""

    def __init__(self, refuse: Exception | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refuse = refuse

    def act(self, name: str) -> Any:
        async def do(*given: Any) -> jobs.Job:
            self.calls.append((name, *given))
            if self.refuse is not None:
                raise self.refuse
            return JOB

        return do


def value(result: Any) -> Any:
    async def answer(*_: Any, **__: Any) -> Any:
        return result

    return answer


def ask(path: str, done: Done, *, method: str = "GET", who: Identity = ADMIN, form: Any = (), language: str = "en",
        empty: bool = False, query: str = "") -> Any:  # fmt: skip
    acts = {name: done.act(name) for name in ("decide", "cancel", "launch")}
    sources = JobSources(
        **acts, listing=value([]), job=value(JOB), events=value([]), changes=value([]), files=value(FILES),
        templates=value([] if empty else [TEMPLATE]), template=value(TEMPLATE),
    )  # fmt: skip
    acts = {name: done.act(name) for name in ("add", "change", "delete", "pause", "run_now")}
    times = ScheduleSources(
        **acts, listing=value([] if empty else SCHEDULES), one=value(SCHEDULES[0]), templates=value([TEMPLATE]),
        template=value(TEMPLATE), spec_of=value(SPEC),
    )  # fmt: skip
    pages = Pages(ManualClock())
    every = [*endpoints(sources, pages), *schedule_pages.endpoints(times, pages)]
    found = {(each.method, each.path): each for each in every}
    cookie = f"{LANGUAGE_COOKIE}={language}".encode()
    asked = Request({"type": "http", "method": method, "path": path, "query_string": query.encode(), "scheme": "http",
                     "headers": [(b"host", b"console"), (b"cookie", cookie)], "server": ("console", 80)})  # fmt: skip
    body = urlencode(form).encode()
    call = Call(who, {"id": "7", "name": "deploy"}, asked.query_params, body, asked)
    return asyncio.run(found[method, path].handler(call))


@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "path", ["/schedules", "/schedules/{name}", "/new-schedule", "/templates", "/templates/{name}"]
)
def test_every_page_with_hostile_texts(path: str, language: str, empty: bool) -> None:
    html = bytes(ask(path, Done(), language=language, empty=empty).body).decode()
    assert "<script>alert" not in html
    assert f'<html lang="{language}"' in html
    seen = bytes(ask(path, Done(), who=VIEWER).body).decode()
    assert 'action="/schedules' not in seen and 'action="/templates' not in seen, "nothing to do for a viewer"


def test_a_form_launches_a_job_with_typed_answers() -> None:
    done = Done()
    form = [("release", "v1"), ("count", "3"), ("ratio", ""), ("colour", "blue"), ("zones", "a"), ("zones", "b")]
    answer = ask("/templates/{name}", done, method="POST", form=[*form, ("token", "hunter2")])
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs/7")
    ((name, template, launch, who),) = done.calls
    assert (name, template, who) == ("launch", "deploy", ADMIN)
    assert launch.parameters == {
        "release": "v1", "count": 3, "force": False, "colour": "blue", "zones": ["a", "b"], "token": "hunter2",
    }  # fmt: skip


def test_a_bad_answer_is_shown_with_the_form_as_it_was_but_no_secret() -> None:
    done = Done(BadParameter("the parameter 'count' may be at most 5", parameter="count"))
    answer = ask("/templates/{name}", done, method="POST", form=[("count", "9"), ("token", "hunter2")])
    html = bytes(answer.body).decode()
    assert answer.status_code == 400
    assert 'id="field-count-error"' in html and 'value="9"' in html and 'aria-invalid="true"' in html
    assert "hunter2" not in html
    assert ask("/templates/{name}", Done(), method="POST", form=[("count", "x")]).status_code == 400


def test_what_a_job_fetched_is_listed_and_downloaded_by_who_may() -> None:
    shown = bytes(ask("/jobs/{id}", Done()).body).decode()
    assert '<a id="file-1" href="/jobs/7/files/1">got/n1/etc/hosts</a>' in shown
    assert "2.0 KiB" in shown
    assert "/etc/hosts</td>" in shown
    seen = bytes(ask("/jobs/{id}", Done(), who=VIEWER).body).decode()
    assert "got/n1/etc/hosts" in seen
    assert "/files/1" not in seen, "who may not read it gets no link"


@pytest.mark.parametrize(("word", "approved"), [("approve", True), ("deny", False)])
def test_a_decision_leads_back_to_the_job(word: str, approved: bool) -> None:
    for done in (Done(), Done(Conflict("somebody else was first"))):
        answer = ask(f"/jobs/{{id}}/{word}", done, method="POST", form=[("reason", " fine ")])
        assert (answer.status_code, answer.headers["location"]) == (303, "/jobs/7")
        assert done.calls == [("decide", 7, ADMIN, approved, "fine")]


def test_schedules_are_paused_resumed_and_run() -> None:
    done = Done()
    for word, back in [("pause", "/schedules"), ("resume", "/schedules"), ("run", "/jobs/7")]:
        assert ask(f"/schedules/{{name}}/{word}", done, method="POST").headers["location"] == back
    assert done.calls == [
        ("pause", "deploy", ADMIN, True),
        ("pause", "deploy", ADMIN, False),
        ("run_now", "deploy", ADMIN),
    ]


def test_a_jobs_page_says_what_it_waits_for_and_its_batches(t: Any) -> None:
    waiting = Waiting("lock", "db (job 3)")
    batches = [Batch(1, "passed", ["n1"]), Batch(2, "failed", kind="rollback", message="x", job=9)]
    summary = jobs.JobSummary(7, "x", "waiting", 1.0, "me", ["n1"], waiting_for=waiting)
    job = jobs.Job(summary, SPEC, [], [], batches, Approval("denied", "ann", 1.0, "no"))
    page = views.page(job, [], t)
    assert page["job"]["waits"] == "lock db (job 3)"
    assert page["job"]["approval"] == "denied by ann: no"
    assert [(row["name"], row["job"]) for row in page["batches"]] == [("1", None), ("rollback", 9)]
    assert views.rows([summary], t)[0]["waits"] == "lock db (job 3)"


def test_a_schedule_is_made_of_a_template() -> None:
    done = Done()
    form = [("name!", "weekly"), ("cron!", "0 4 * * 1"), ("zone!", "Asia/Shanghai"), ("jitter!", "5m"),
            ("catch_up!", "last"), ("release", "v1"), ("count", "3"), ("colour", "blue")]  # fmt: skip
    answer = ask("/new-schedule", done, method="POST", form=form, query="template=deploy")
    assert (answer.status_code, answer.headers["location"]) == (303, "/schedules/weekly")
    ((what, name, spec, who),) = done.calls
    assert (what, name, who) == ("add", "weekly", ADMIN)
    parameters = {"release": "v1", "count": 3, "force": False, "colour": "blue"}
    assert spec == ScheduleSpec(
        "0 4 * * 1", zone="Asia/Shanghai", jitter_s=300.0, catch_up="last", template=TemplateUse("deploy", parameters)
    )


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        ([("name!", "a b"), ("every!", "6h")], "name"),
        ([("name!", "x")], "cron"),
        ([("name!", "x"), ("cron!", "* * * * *"), ("every!", "6h")], "cron"),
        ([("name!", "x"), ("cron!", "61 * * * *")], "cron"),
        ([("name!", "x"), ("cron!", "* * * * *"), ("zone!", "Mars/Olympus")], "zone"),
        ([("name!", "x"), ("every!", "soon")], "every"),
        ([("name!", "x"), ("every!", "1s")], "every"),
        ([("name!", "x"), ("every!", "6h"), ("jitter!", "2d")], "jitter"),
        ([("name!", "x"), ("every!", "6h"), ("count", "many")], "field-count"),
    ],
)
def test_what_is_wrong_with_a_schedule_stands_beside_its_field(form: Any, wrong: str) -> None:
    done = Done()
    answer = ask("/new-schedule", done, method="POST", form=form, query="template=deploy")
    html = bytes(answer.body).decode()
    assert answer.status_code == 400
    assert f'id="{wrong}-error"' in html and html.count('aria-invalid="true"') == 1
    assert done.calls == []


def test_a_schedule_repeats_a_job_and_keeps_it_when_it_is_changed() -> None:
    done = Done()
    ask("/new-schedule", done, method="POST", form=[("name!", "x"), ("every!", "10m")], query="job=7")
    ask("/schedules/{name}", done, method="POST", form=[("every!", "20m")])
    assert [call[:3] for call in done.calls] == [
        ("add", "x", ScheduleSpec(None, 600.0, job=SPEC)),
        ("change", "nightly", ScheduleSpec(None, 1200.0, job=SPEC)),
    ]


def test_who_may_not_approve_reads_so_on_the_page_of_the_job() -> None:
    done = Done(Forbidden("admin:ann submitted job 7: somebody else has to approve it"))
    answer = ask("/jobs/{id}/approve", done, method="POST", form=[("reason", "")], language="zh-CN")
    html = bytes(answer.body).decode()
    assert answer.status_code == 403
    assert "作业 7 由 admin:ann 提交：须由他人批准" in html and 'id="changes"' in html
    assert "hx-get" not in html and "sse-connect" not in html, "it has no address of its own to be read anew from"

"""Every page renders, empty and full, in both languages, whatever texts it is given; and says nothing to strangers."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response

from llmagentos.agents import log as runlog
from llmagentos.api import budgets, jobs, nodes, registry, runs
from llmagentos.api.agents import AgentInfo, AgentSpec
from llmagentos.api.approvals import Approval
from llmagentos.api.llm import ModelInfo, ReplicaInfo
from llmagentos.api.runs import NewRun, RunEvent
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from llmagentos.core.events import Hub
from llmagentos.core.i18n import LANGUAGES
from llmagentos.security.identity import Identity, Kind
from llmagentos.server.console.refusals import as_page, as_page_for_browsers
from llmagentos.server.console.render import HEADERS, LANGUAGE_COOKIE, Pages
from llmagentos.server.console.sources import Sources
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes import console
from unit.server.console import world
from unit.server.console.world import HOSTILE, missing, value

RENDER = Pages(ManualClock())
ADMIN = Identity(Kind.ADMIN, HOSTILE, "t1")
VIEWER = Identity(Kind.VIEWER, "vi", "t2")
VOID = frozenset({"meta", "link", "input", "path", "rect", "circle", "br"})


class Checker(HTMLParser):
    """Complains of what is not closed, of ids used twice, of fields without a label, and of what runs inline."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.wrong: list[str] = []
        self.fields: list[str] = []
        self.labels: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self.ids += [names["id"] or ""] if "id" in names else []
        self.wrong += [f"{tag} {name}" for name in names if name.startswith("on") or name == "style"]
        if tag == "label":
            self.labels.add(names.get("for") or "")
        named = "aria-label" in names or "hidden" in names or names.get("type") == "hidden" or "label" in self.open
        if tag in ("input", "select", "textarea") and not named:
            self.fields.append(names.get("id") or f"{tag} {attrs}")
        if tag == "script" and not (names.get("src") or "").startswith("/static/"):
            self.wrong.append(f"script {attrs}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and self.open.pop() != tag:
            self.wrong.append(f"/{tag}")


def check(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    assert checker.wrong == []
    assert set(checker.fields) <= checker.labels
    assert checker.open == []
    assert sorted(set(checker.ids)) == sorted(checker.ids)
    assert "<script>alert" not in html


EVENTS: list[RunEvent] = [
    RunEvent(seq, 10.0 + seq, data)
    for seq, data in enumerate(
        [
            runs.Created(HOSTILE, 1, HOSTILE, HOSTILE, HOSTILE, "s1"),
            runs.Claimed(HOSTILE, 1),
            runs.ToolCalled("c", HOSTILE, {HOSTILE: HOSTILE}),
            runs.ToolAnswered("c", {HOSTILE: [HOSTILE]}),
            runs.ModelCalled(runs.Purpose.ANSWER, HOSTILE),
            runs.ModelReplied(runs.Purpose.ANSWER, HOSTILE * 20, 1, 2, 0.1, 0.1, 0.1),
            runs.Answered(HOSTILE, [{HOSTILE: HOSTILE}, HOSTILE]),
        ],
        1,
    )
]


def empty() -> Sources:
    return Sources(
        instances=list, models=value([]),
        agents=value([]), agent=missing, runs=value([]), run_counts=value({}), run=missing,
        run_events=missing, draft=lambda _: None, ask=missing, kill=missing, pause=missing,
        resume=missing, approvals=list, approve=missing, deny=missing, jobs=value([]),
        nodes=value([]), node=missing, budgets=lambda: budgets.Budgets("EUR", []),
    )  # fmt: skip


def full(**more: Any) -> Sources:
    log = runlog.fold(EVENTS)
    run, summary = runlog.detail("r1", log), runlog.summary("r1", log)
    agent = AgentInfo(HOSTILE, 1, f"module:{HOSTILE}", False, 1.0, HOSTILE, AgentSpec("x", instructions=HOSTILE), ["f"])
    method = registry.MethodSpec("find", HOSTILE, True, True, {"properties": {HOSTILE: {"type": HOSTILE}}})
    service = registry.ServiceSpec("find", HOSTILE, [method])
    instance = registry.Instance("i1", HOSTILE, HOSTILE, HOSTILE, [service], [], "up", 1.0)
    job = jobs.JobSummary(7, HOSTILE, "running", 1.0, HOSTILE, [HOSTILE], ["check"], 2.0)
    unit = nodes.ModuleUnit(HOSTILE, "failed", message=HOSTILE)
    node = nodes.NodeSummary(HOSTILE, "away", 1.0, 2.0, HOSTILE, 2, 1, [0.1], 1, [unit], "0.1")
    facts = nodes.Facts(HOSTILE, HOSTILE, os=HOSTILE, addresses=[HOSTILE], user=HOSTILE)
    replica = ReplicaInfo(HOSTILE, "unreachable", 1, HOSTILE, HOSTILE, HOSTILE, 1, 2, 0.5, 3.0, 0.1, 4, 5, 6.0, 7)
    model = ModelInfo(
        HOSTILE, "openai", "chat", "unreachable", [HOSTILE], 1, 1, 1, 10, HOSTILE, 1.5, 2**20, 5, HOSTILE, 1.0, 2.0,
        [replica],
    )  # fmt: skip
    limits = [
        budgets.LimitUsage(resource, amount, period, hard, [1.0], 80, 10, ends)
        for resource, amount, period, hard, ends in (
            ("tokens", 100, "day", True, 2.0), ("money", 0, "life", False, None), ("seconds", 50, "hour", True, 2.0)
        )
    ]  # fmt: skip
    spent = budgets.Budget(f"org/{HOSTILE}", limits, "refuse", {"tokens": 80, "money": 8}, {}, set_by=HOSTILE)
    waits = budgets.BudgetWait("r1", f"org/{HOSTILE}", "tokens", "day", 1.0, None)
    asked = Approval("r1.call-1", "r1", HOSTILE, "call-1", HOSTILE, {HOSTILE: HOSTILE}, HOSTILE, HOSTILE, 1.0, 2.0)
    given: dict[str, Any] = {
        "instances": lambda: [instance], "models": value([model]),
        "agents": value([agent]), "agent": value(agent), "runs": value([summary]),
        "run_counts": value({"running": 1}), "run": value(run),
        "run_events": value(EVENTS), "draft": lambda _: None, "ask": value(summary),
        "kill": value(run), "pause": value(run), "resume": value(run),
        "approvals": lambda: [asked], "approve": value(run), "deny": value(run),
        "jobs": value([job]),
        "budgets": lambda: budgets.Budgets("EUR", [spent], [waits]),
        "nodes": value([node]), "node": value(nodes.Node(node, facts, nodes.Heartbeat(), [])),
    }  # fmt: skip
    return Sources(**(given | more))


def request(path: str, *, method: str = "GET", query: str = "", **headers: str) -> Request:
    raw = [(name.replace("_", "-").lower().encode(), text.encode()) for name, text in headers.items()]
    return Request(
        {"type": "http", "method": method, "path": path, "query_string": query.encode(), "scheme": "http",
         "headers": [(b"host", b"console"), *raw], "server": ("console", 80)}
    )  # fmt: skip


def endpoints(sources: Sources) -> dict[tuple[str, str], Endpoint]:
    found = console.endpoints(sources, RENDER, Hub(), None)  # type: ignore[arg-type]  # only for the feed
    found += world.endpoints(RENDER, full=bool(sources.instances()))
    return {(endpoint.method, endpoint.path): endpoint for endpoint in found}


def ask(
    sources: Sources, path: str, *, method: str = "GET", who: Identity = ADMIN, body: bytes = b"", query: str = "",
    **headers: str,
) -> Response:  # fmt: skip
    asked = request(path, method=method, query=query, **headers)
    parameters = {"id": "7", "name": "x", "agent": "x"}
    endpoint = endpoints(sources)[method, path]
    return asyncio.run(endpoint.handler(Call(who, parameters, asked.query_params, body, asked)))  # type: ignore[arg-type]


def text(response: Response) -> str:
    return bytes(response.body).decode()


PAGES = [path for method, path in endpoints(empty()) if method == "GET" and path != "/console/feed"]
LISTS = [path for path in PAGES if "{" not in path]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("path", PAGES)
def test_every_page_with_hostile_texts(path: str, language: str) -> None:
    response = ask(full(), path, cookie=f"{LANGUAGE_COOKIE}={language}")
    html = text(response)
    check(html)
    assert f'<html lang="{language}"' in html
    assert "&lt;script&gt;alert" in html
    assert {name: response.headers[name] for name in HEADERS} == HEADERS
    assert set(re.findall(r"topic=(\w+)", html)) <= console.TOPICS.keys(), "what it follows can be followed"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("path", LISTS)
def test_every_page_of_an_empty_system(path: str, language: str) -> None:
    check(text(ask(empty(), path, cookie=f"{LANGUAGE_COOKIE}={language}")))


@pytest.mark.parametrize("path", PAGES)
def test_the_live_part_alone(path: str) -> None:
    html = text(ask(full(), path, hx_request="true"))
    check(html)
    assert "<html" not in html
    assert html.strip() in text(ask(full(), path)) or "text-" in html


@pytest.mark.parametrize("path", ["/runs", "/agents/{name}", "/runs/{id}"])
def test_a_viewer_sees_no_forms_to_act(path: str) -> None:
    log = runlog.fold(EVENTS[:3])
    going = full(run=value(runlog.detail("r1", log)), run_events=value(EVENTS[:3]))
    assert 'action="/runs' in text(ask(going, path))
    assert 'action="/runs' not in text(ask(going, path, who=VIEWER))


def test_older_runs_are_a_page_further() -> None:
    summary = runlog.summary("r1", runlog.fold(EVENTS))
    many = [msgspec.structs.replace(summary, id=f"r{number}") for number in range(console.MAX_ROWS + 1)]
    asked: list[str | None] = []

    async def listing(*, limit: int, before: str | None = None, **_: Any) -> list[runs.RunSummary]:
        asked.append(before)
        return many[:limit] if before is None else many[limit // 2 :] if before == "r49" else []

    sources = full(runs=listing)
    first = text(ask(sources, "/runs", query="active=1"))
    assert 'href="/runs?active=1&amp;before=r49"' in first
    assert "Newest" not in first
    assert 'id="run-r50"' not in first
    second = text(ask(sources, "/runs", query="active=1&before=r49"))
    assert 'href="/runs?active=1">Newest<' in second
    assert "Older" not in second
    assert "sse-connect" not in second, "what is old does not move"
    assert "No older runs" in text(ask(sources, "/runs", query="before=r9"))
    assert asked == [None, "r49", "r9"]
    for wrong in ("%00", "a-b", "x" * 13, ""):
        with pytest.raises(NotFound):
            ask(sources, "/runs", query=f"before={wrong}")


def test_a_run_that_ended_stands_still() -> None:
    assert "sse-connect" not in text(ask(full(), "/runs/{id}"))
    log = runlog.fold(EVENTS[:3])
    going = full(run=value(runlog.detail("r1", log)), run_events=value(EVENTS[:3]))
    assert 'sse-connect="/console/feed?topic=run:r1"' in text(ask(going, "/runs/{id}"))


def test_asking_leads_to_the_run() -> None:
    got: list[tuple[NewRun, Identity]] = []

    async def started(wanted: NewRun, who: Identity) -> Any:
        got.append((wanted, who))
        return runlog.summary("r9", runlog.fold(EVENTS))

    body = b"agent=support&input=+How+much%3F%0A"
    response = ask(full(ask=started), "/runs", method="POST", body=body)
    assert (response.status_code, response.headers["location"]) == (303, "/runs/r9")
    assert got == [(NewRun("support", "How much?"), ADMIN)]


@pytest.mark.parametrize(
    "body", [b"", b"agent=support", b"agent=support&input=++", b"agent=../x&input=a", b"\xff=\xfe", b"a=1&" * 1000]
)
def test_a_request_that_does_not_fit_is_shown_again(body: bytes) -> None:
    response = ask(full(), "/runs", method="POST", body=body)
    assert response.status_code == 400
    assert 'role="alert"' in text(response)
    check(text(response))


def test_a_refused_request_is_not_lost() -> None:
    response = ask(full(ask=missing), "/runs", method="POST", body=b"agent=nobody&input=my+words")
    assert response.status_code == 404
    assert ">my words</textarea>" in text(response)


@pytest.mark.parametrize("act", ["pause", "resume", "kill"])
def test_what_is_done_to_a_run_leads_back_to_it(act: str) -> None:
    got: list[Any] = []

    async def done(*given: Any) -> None:
        got.append(given)

    response = ask(full(**{act: done}), f"/runs/{{id}}/{act}", method="POST")
    assert (response.status_code, response.headers["location"]) == (303, "/runs/r1")
    assert got == [("r1", ADMIN)]


def test_killing_what_has_ended_shows_how_it_ended() -> None:
    async def ended(*_: Any) -> None:
        raise Conflict("it has ended")

    response = ask(full(kill=ended), "/runs/{id}/kill", method="POST")
    assert (response.status_code, response.headers["location"]) == (303, "/runs/r1")


def test_a_choice_of_language_is_kept_and_leads_back() -> None:
    response = ask(full(), "/runs", query="active=1&lang=zh-CN")
    assert (response.status_code, response.headers["location"]) == (303, "/runs?active=1")
    assert f"{LANGUAGE_COOKIE}=zh-CN" in response.headers["set-cookie"]
    assert ask(full(), "/runs", query="lang=xx").status_code == 200


@pytest.mark.parametrize(
    "topic", ["", "tokens", "run", "run:", "runs:1", "job", "queue:web", "claims:server", "x" * 999]
)
def test_only_known_topics_can_be_followed(topic: str) -> None:
    with pytest.raises(InvalidInput):
        ask(full(), "/console/feed", query=f"topic={topic}")


def test_not_all_topics_at_once() -> None:
    for query in ("", "&".join(["topic=runs"] * 9)):
        with pytest.raises(InvalidInput):
            ask(full(), "/console/feed", query=query)


def test_following_needs_the_permission_to_look() -> None:
    with pytest.raises(Forbidden):
        ask(full(), "/console/feed", query="topic=runs", who=Identity(Kind.METRICS, "prometheus"))


@pytest.mark.parametrize(
    ("asked", "status", "header", "target"),
    [
        (request("/runs", query="active=1"), 303, "location", "/login?next=%2Fruns%3Factive%3D1"),
        (request("/"), 303, "location", "/login"),
        (request("/runs/x/kill", method="POST"), 303, "location", "/login"),
        (request("/runs", hx_request="true"), 401, "hx-redirect", "/login?next=%2Fruns"),
    ],
)
def test_without_a_session_one_is_sent_to_the_login(asked: Request, status: int, header: str, target: str) -> None:
    response = as_page(RENDER)(asked, Unauthenticated("who?"), None)
    assert (response.status_code, response.headers[header]) == (status, target)


def test_errors_are_pages_only_for_browsers() -> None:
    answer = as_page_for_browsers(RENDER)
    shown = answer(request("/x", accept="text/html,*/*"), NotFound(HOSTILE, hint="see /api"), ADMIN)
    check(text(shown))
    assert re.search(r"<h1>Not found</h1>", text(shown))
    assert "see /api" not in text(shown)
    for path, accept in (("/x", "*/*"), ("/api/v1/x", "text/html"), ("/v1/x", "text/html")):
        assert "problem" in answer(request(path, accept=accept), NotFound("x"), ADMIN).headers["content-type"] or (
            path.startswith("/v1")
        )

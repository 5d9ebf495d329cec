"""The console's pages, the stream that keeps them live, and what can be done from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from starlette.responses import Response

from llmagentos.agents import veiling
from llmagentos.api.runs import ModelCalled, NewRun, Purpose, RunDelta, RunEvent
from llmagentos.core.errors import CallerError, Conflict, Forbidden, InvalidInput, NotFound
from llmagentos.core.events import Hub
from llmagentos.core.ids import LENGTH
from llmagentos.fleet.job_news import JobNews
from llmagentos.security.identity import Identity, Permission
from llmagentos.server import sse
from llmagentos.server.auth import Authenticator
from llmagentos.server.console import feed
from llmagentos.server.console.forms import fields_of, see_other
from llmagentos.server.console.refusals import FEED
from llmagentos.server.console.render import Pages, language_choice, translation
from llmagentos.server.console.sources import Sources
from llmagentos.server.console.views import agents, approvals, budgets, jobs, overview, runs, services
from llmagentos.server.endpoint import Call, Endpoint, Handler
from llmagentos.server.routes import approval_pages

MAX_ROWS = 50
MAX_TOPICS = 8
MAX_FORM = 512 * 1024
_ENDS = frozenset({"answered", "failed", "exited", "killed"})

TOPICS = {
    "registry": Permission.REGISTRY_READ,
    "runs": Permission.RUNS_READ,
    "approvals": Permission.RUNS_READ,
    "run": Permission.RUNS_READ,
    "jobs": Permission.JOBS_READ,
    "job": Permission.JOBS_READ,
    "nodes": Permission.NODES_READ,
    "budgets": Permission.BUDGETS_READ,
    "models": Permission.MODELS_READ,
}
"""What a page may follow, and what that needs; `run` and `job` are followed by one's id, as in `run:ID`."""


def endpoints(sources: Sources, pages: Pages, hub: Hub, authenticator: Authenticator) -> list[Endpoint]:
    """All pages that need a session."""
    return [
        _overview(sources, pages),
        _services(sources, pages),
        *_agents(sources, pages),
        *_runs(sources, pages),
        *_control(sources),
        *approval_pages.endpoints(sources, pages),
        _budgets(sources, pages),
        Endpoint("GET", FEED, Permission.SYSTEM_READ, _feed(sources, hub, authenticator), streams=True),
    ]


def _page(path: str, allow: Permission, view: Callable[[Call], Awaitable[Response]]) -> Endpoint:
    async def show(call: Call) -> Response:
        return language_choice(call.request) or await view(call)

    return Endpoint("GET", path, allow, show)


def _overview(sources: Sources, pages: Pages) -> Endpoint:
    async def show(call: Call) -> Response:
        t = translation(call.request)
        active, recent, counts, known = await asyncio.gather(
            sources.runs(ended=False, limit=10),
            sources.runs(ended=True, limit=5),
            sources.run_counts(),
            sources.agents(),
        )
        engines, started, machines = await asyncio.gather(sources.models(), sources.jobs(limit=5), sources.nodes())
        tiles = [
            overview.runs(counts, t),
            overview.approvals(sources.approvals(), t),
            overview.agents(known, t),
            overview.services(sources.instances(), t),
            overview.models(engines, t),
            overview.jobs(started, t),
            overview.nodes(machines, t),
        ]
        return pages.page(
            call.request,
            call.identity,
            "overview.html",
            section="overview",
            topics="topic=runs&topic=approvals&topic=jobs&topic=nodes&topic=registry",
            every=10,
            tiles=tiles,
            running=runs.rows(veiling.shown(run, call.identity) for run in active),
            recent=runs.rows(veiling.shown(run, call.identity) for run in recent),
            agents=[agent.name for agent in known],
            jobs=jobs.rows(started, t),
        )

    return _page("/", Permission.SYSTEM_READ, show)


def _services(sources: Sources, pages: Pages) -> Endpoint:
    async def show(call: Call) -> Response:
        found = services.listing(sources.instances(), translation(call.request))
        return pages.page(
            call.request, call.identity, "services.html", section="services", topics="topic=registry", services=found
        )

    return _page("/services", Permission.REGISTRY_READ, show)


def _agents(sources: Sources, pages: Pages) -> list[Endpoint]:
    async def listing(call: Call) -> Response:
        known = agents.rows(await sources.agents(), translation(call.request))
        return pages.page(
            call.request, call.identity, "agents.html", section="agents", topics="topic=registry", every=5, agents=known
        )

    async def show(call: Call) -> Response:
        name = call.path["name"]
        agent, recent = await asyncio.gather(sources.agent(name), sources.runs(ended=True, agent=name, limit=10))
        return pages.page(
            call.request,
            call.identity,
            "agent.html",
            section="agents",
            topics="topic=runs",
            agent=agents.page(agent, translation(call.request)),
            runs=runs.rows(veiling.shown(run, call.identity) for run in recent),
        )

    read = Permission.AGENTS_READ
    return [_page("/agents", read, listing), _page("/agents/{name}", read, show)]


def _runs(sources: Sources, pages: Pages) -> list[Endpoint]:
    async def listing(call: Call, **form: Any) -> Response:
        active, before = call.flag("active"), _run_id(call.query["before"]) if "before" in call.query else None
        found, known = await asyncio.gather(
            sources.runs(ended=not active, limit=MAX_ROWS + 1, before=before), sources.agents()
        )
        moves = before is None or not all(run.state.ended for run in found[:MAX_ROWS])
        return pages.page(
            call.request,
            call.identity,
            "runs.html",
            section="runs",
            topics="topic=runs" if moves else "",
            runs=runs.rows(veiling.shown(run, call.identity) for run in found[:MAX_ROWS]),
            older=found[MAX_ROWS - 1].id if len(found) > MAX_ROWS else None,
            newest=before is None,
            active=active,
            agents=[agent.name for agent in known],
            **({"chosen": call.query.get("agent", ""), "input": "", "error": None} | form),
        )

    async def show(call: Call) -> Response:
        run = veiling.shown(await sources.run(call.path["id"]), call.identity)
        events = await sources.run_events(run.id)
        if not veiling.may_read(call.identity, run.created_by):
            events = [veiling.veiled(event) for event in events]
        topics = "" if run.state.ended else f"topic=run:{run.id}"
        shown = runs.page(run, events, translation(call.request))
        asked = [veiling.asked(each, call.identity) for each in sources.approvals() if each.run == run.id]
        shown["waiting"] = approvals.rows(asked, translation(call.request))
        return pages.page(call.request, call.identity, "run.html", section="runs", topics=topics, **shown)

    async def ask(call: Call) -> Response:
        form = fields_of(call.body)
        wanted = {"agent": form.get("agent", ""), "input": form.get("input", "").strip()}
        if form.get("session"):
            wanted["session"] = form["session"]
        try:
            started = await sources.ask(msgspec.convert(wanted, NewRun), call.identity)
        except (CallerError, msgspec.ValidationError) as error:
            told = error if isinstance(error, CallerError) else InvalidInput(f"this request does not fit: {error}")
            form = {"chosen": wanted["agent"], "input": wanted["input"]}
            return await listing(call, error=told, **form)
        return see_other(f"/runs/{started.id}")

    read, write = Permission.RUNS_READ, Permission.RUNS_WRITE
    return [
        _page("/runs", read, listing),
        _page("/runs/{id}", read, show),
        Endpoint("POST", "/runs", write, ask, body=bytes, max_body=MAX_FORM, audited=True),
    ]


def _run_id(text: str) -> str:
    """The id of a run, as far as one can see."""
    if not (text.isascii() and text.isalnum() and len(text) <= LENGTH):
        raise NotFound(f"there is no run {text[:80]!r}", hint="`llmctl ps -a` lists them")
    return text


def _control(sources: Sources) -> list[Endpoint]:
    """What people do to runs; each leads back to the run's page."""

    def doing(act: Callable[[str, Identity], Awaitable[object]]) -> Handler:
        async def do(call: Call) -> Response:
            run = await sources.run(call.path["id"])
            with suppress(Conflict):  # it ended meanwhile, or somebody else was first: its page says how it is
                await act(run.id, call.identity)
            return see_other(f"/runs/{run.id}")

        return do

    acts = {"kill": sources.kill, "pause": sources.pause, "resume": sources.resume}
    return [
        Endpoint("POST", f"/runs/{{id}}/{name}", Permission.RUNS_WRITE, doing(act), audited=True)
        for name, act in acts.items()
    ]


def _budgets(sources: Sources, pages: Pages) -> Endpoint:
    async def show(call: Call) -> Response:
        shown = budgets.page(sources.budgets(), translation(call.request))
        return pages.page(
            call.request,
            call.identity,
            "budgets.html",
            section="budgets",
            topics="topic=budgets&topic=runs",
            every=5,
            **shown,
        )

    return _page("/budgets", Permission.BUDGETS_READ, show)


def _feed(sources: Sources, hub: Hub, authenticator: Authenticator) -> Handler:
    async def follow(call: Call) -> Response:
        topics = call.request.query_params.getlist("topic")
        if not 0 < len(topics) <= MAX_TOPICS:
            raise InvalidInput(f"between 1 and {MAX_TOPICS} topics can be followed, not {len(topics)}")
        for topic in topics:
            _check(call, topic)
        readable = call.identity.may(Permission.RUNS_CONTENT)
        run = next((topic.removeprefix("run:") for topic in topics if topic.startswith("run:")), "")
        now = partial(_draft, sources, run) if readable else _unwritten
        changes = feed.changes(hub, topics, now=now, told=_told if readable else _untold, done=_done)
        return sse.stream(_while_logged_in(changes, call, authenticator))

    return follow


def _check(call: Call, topic: str) -> None:
    noun, colon, one = topic.partition(":")
    if noun not in TOPICS or bool(colon) != (noun in ("run", "job")) or bool(colon) != bool(one):
        raise InvalidInput(f"there is no topic {topic[:80]!r}")
    if not call.identity.may(TOPICS[noun]):
        raise Forbidden(f"{call.identity} may not follow {noun}")


async def _while_logged_in(
    events: AsyncIterator[sse.Event], call: Call, authenticator: Authenticator
) -> AsyncIterator[sse.Event]:
    """`events` until the session ends: a token that was revoked is told nothing more."""
    async for event in events:
        if await authenticator.identify(call.request, "GET") is None:
            return
        yield event


def _draft(sources: Sources, run: str) -> feed.Text | None:
    draft = sources.draft(run)
    return feed.Text(draft.text, draft.call) if draft is not None else None


def _told(item: Any) -> feed.Text | None:
    if isinstance(item, RunDelta):
        return feed.Text(item.text)
    if isinstance(item, RunEvent) and isinstance(item.data, ModelCalled) and item.data.purpose is Purpose.ANSWER:
        return feed.Text("", item.seq)
    return None


def _unwritten() -> None:
    """See `_untold`."""


def _untold(_: Any) -> None:
    """What is being written in a run is not for those who may only look."""


def _done(item: Any) -> bool:
    if isinstance(item, RunEvent):
        return item.type in _ENDS
    return isinstance(item, JobNews) and item.ended

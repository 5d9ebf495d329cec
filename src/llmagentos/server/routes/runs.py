"""Runs: started, watched, stopped; and carried on by hosts of agents."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from llmagentos.agents.hosted import Hosted, module_host, require_own
from llmagentos.agents.ledger import Ledger
from llmagentos.api.runs import (
    Append,
    ClaimRequest,
    Claims,
    LeaseGranted,
    LeaseRequest,
    NewRun,
    Run,
    RunDelta,
    RunEvent,
    RunSummary,
)
from llmagentos.core.errors import InvalidInput
from llmagentos.security.identity import Permission
from llmagentos.server import sse
from llmagentos.server.connected import while_connected
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.agents import found
from llmagentos.storage.agents import AgentRecords

_MOST = 1000
_ID = re.compile(r"[0-9a-z]{1,12}")
_MAX_APPEND = 2 * 1024 * 1024


def endpoints(ledger: Ledger, agents: AgentRecords, hosted: Hosted) -> list[Endpoint]:
    """`ledger` holds the runs, `agents` the definitions, `hosted` is told which modules ask for runs."""
    return [*_for_people(ledger, agents), *_for_hosts(ledger, hosted)]


def _for_people(ledger: Ledger, agents: AgentRecords) -> list[Endpoint]:
    async def start(call: Call) -> RunSummary:
        request: NewRun = call.body
        if not request.input.strip():
            raise InvalidInput("the request is empty")
        agent = await found(agents, request.agent)
        return await ledger.create(agent, request.input, by=str(call.identity), session=request.session)

    async def listing(call: Call) -> list[RunSummary]:
        limit = max(1, int(call.number("limit", 100, most=_MOST)))
        return await ledger.newest(ended=call.flag("all"), agent=call.query.get("agent"), limit=limit)

    async def get(call: Call) -> Run:
        return await ledger.get(await _resolve(ledger, call))

    async def events(call: Call) -> list[RunEvent] | StreamingResponse:
        run = await _resolve(ledger, call)
        last = call.request.headers.get("last-event-id", call.query.get("after", "0"))
        if not last.isdecimal() or len(last) > 9:
            raise InvalidInput(f"the last event's id must be a number, not {last!r}")
        if call.flag("follow"):
            return sse.stream(_events(ledger.follow(run, after=int(last))))
        return await ledger.events(run, after=int(last))

    async def kill(call: Call) -> Run:
        return await ledger.kill(await _resolve(ledger, call), by=str(call.identity))

    read, write = Permission.RUNS_READ, Permission.RUNS_WRITE
    one = "/api/v1/runs/{id}"
    return [
        Endpoint(
            "POST",
            "/api/v1/runs",
            write,
            start,
            body=NewRun,
            returns=RunSummary,
            summary="Ask an agent",
            audited=True,
        ),
        Endpoint(
            "GET",
            "/api/v1/runs",
            read,
            listing,
            returns=list[RunSummary],
            summary="List runs, newest first (`all`, `agent`, `limit`)",
        ),
        Endpoint("GET", one, read, get, returns=Run, summary="Show one run, by its id or the unique start of it"),
        Endpoint(
            "GET",
            f"{one}/events",
            read,
            events,
            returns=list[RunEvent],
            summary="A run's log; with `follow=1` live, as events named event and delta, until the run has ended",
        ),
        Endpoint("POST", f"{one}/kill", write, kill, returns=Run, summary="Stop a run", audited=True),
    ]


def _for_hosts(ledger: Ledger, hosted: Hosted) -> list[Endpoint]:
    async def claim(call: Call) -> Claims:
        request: ClaimRequest = call.body
        host = module_host(request.module)
        require_own(call.identity, host)
        await hosted.announce(request.module, request.agents, by=call.identity, wait=request.wait)
        names = [agent.spec.name for agent in request.agents]
        work = ledger.claim(host, f"{host}/{request.holder}", agents=names, wait=request.wait)
        return Claims(await while_connected(call.request, work))  # a host that died must not get a run

    async def append(call: Call) -> list[RunEvent]:
        request: Append = call.body
        await _require_host(ledger, call)
        return await ledger.append(call.path["id"], request.fence, request.after, request.events)

    async def lease(call: Call) -> LeaseGranted:
        request: LeaseRequest = call.body
        await _require_host(ledger, call)
        if request.release:
            await ledger.release(call.path["id"], request.fence)
            return LeaseGranted(0.0)
        return LeaseGranted(ledger.renew(call.path["id"], request.fence))

    execute = Permission.RUNS_EXECUTE
    return [
        Endpoint(
            "POST",
            "/api/v1/runs/claim",
            execute,
            claim,
            body=ClaimRequest,
            returns=Claims,
            summary="Take a run of an agent that the calling module hosts (long poll)",
        ),
        Endpoint(
            "POST",
            "/api/v1/runs/{id}/events",
            execute,
            append,
            body=Append,
            returns=list[RunEvent],
            summary="Add to the log of a run that the caller holds the lease of",
            max_body=_MAX_APPEND,
        ),
        Endpoint(
            "PUT",
            "/api/v1/runs/{id}/lease",
            execute,
            lease,
            body=LeaseRequest,
            returns=LeaseGranted,
            summary="Renew or give up the lease of a run",
        ),
    ]


async def _resolve(ledger: Ledger, call: Call) -> str:
    text = call.path["id"].lower()
    if not _ID.fullmatch(text):
        raise InvalidInput(f"{call.path['id']!r} is not the id of a run", hint="`llmctl ps -a` lists runs")
    return await ledger.resolve(text)


async def _require_host(ledger: Ledger, call: Call) -> None:
    require_own(call.identity, await ledger.host_of(call.path["id"]))


async def _events(items: AsyncIterator[RunEvent | RunDelta]) -> AsyncIterator[sse.Event]:
    async for item in items:
        if isinstance(item, RunEvent):
            yield sse.Event("event", item, str(item.seq))
        else:
            yield sse.Event("delta", item)

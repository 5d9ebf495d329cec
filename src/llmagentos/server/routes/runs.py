"""Runs: started, watched, stopped; and carried on by hosts of agents."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from msgspec import structs
from starlette.responses import StreamingResponse

from llmagentos.agents import veiling
from llmagentos.agents.hosted import Hosted, module_host, require_own
from llmagentos.agents.ledger import Ledger
from llmagentos.api.agents import AgentSpec
from llmagentos.api.hosting import Append, ClaimRequest, Claims, LeaseGranted, LeaseRequest
from llmagentos.api.runs import (
    Attachment,
    Data,
    NewRun,
    Run,
    RunDelta,
    RunEvent,
    RunSort,
    RunState,
    RunSummary,
    Wait,
)
from llmagentos.core.errors import InvalidInput
from llmagentos.security.identity import Permission
from llmagentos.server import sse
from llmagentos.server.connected import while_connected
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.agents import found
from llmagentos.storage.agents import AgentRecords

R = TypeVar("R", bound=RunSummary)

ONE = "/api/v1/runs/{id}"
_MOST = 1000
_ID = re.compile(r"[0-9a-z]{1,12}")
_MAX_APPEND = 2 * 1024 * 1024


Attach = Callable[[str, AgentSpec, Sequence[Attachment]], Awaitable[list[Attachment]]]
"""Checks the files of an identity for a run of an agent."""
Waits = Callable[[], Callable[[str], Wait | None]]
"""What runs wait for at this moment, by id."""
Renewed = Callable[[str], Awaitable[None]]
RequirePermits = Callable[[str, Sequence[Data]], Awaitable[None]]
"""Raises `Forbidden` for events that a host may not add to the run."""


def endpoints(
    ledger: Ledger,
    agents: AgentRecords,
    hosted: Hosted,
    waits: Waits,
    renewed: Renewed,
    attach: Attach,
    require: RequirePermits,
) -> list[Endpoint]:
    """`ledger` holds the runs, `agents` the definitions, `hosted` is told which modules ask for runs.

    `waits` says what runs wait for, `renewed` is told of runs whose host lives, `attach` checks files,
    `require` what hosts in modules do.
    """
    return [*_for_people(ledger, agents, waits, attach), *_logs(ledger), *_for_hosts(ledger, hosted, renewed, require)]


def _for_people(ledger: Ledger, agents: AgentRecords, waits: Waits, attach: Attach) -> list[Endpoint]:
    async def start(call: Call) -> RunSummary:
        request: NewRun = call.body
        if not request.input.strip():
            raise InvalidInput("the request is empty")
        agent = await found(agents, request.agent)
        return await ledger.create(
            agent,
            request.input,
            by=str(call.identity),
            session=request.session,
            priority=request.priority,
            parent=await ledger.resolve(request.parent) if request.parent else None,
            attachments=await attach(str(call.identity), agent.spec, request.attachments),
        )

    async def listing(call: Call) -> list[RunSummary]:
        found = await ledger.newest(
            ended=call.flag("all"),
            agent=call.query.get("agent"),
            state=call.choice("state", RunState),
            sort=call.choice("sort", RunSort) or RunSort.NEWEST,
            limit=max(1, int(call.number("limit", 100, most=_MOST))),
            offset=int(call.number("offset", 0, most=1e9)),
        )
        return [veiling.shown(run, call.identity) for run in with_waits(found, waits)]

    async def get(call: Call) -> Run:
        run = await ledger.get(await resolve(ledger, call), viewer=str(call.identity))
        return veiling.shown(with_waits([run], waits)[0], call.identity)

    read, write = Permission.RUNS_READ, Permission.RUNS_WRITE
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
            summary="List runs (`all`, `agent`, `state`, `sort`, `limit`, `offset`)",
        ),
        Endpoint("GET", ONE, read, get, returns=Run, summary="Show one run, by its id or the unique start of it"),
    ]


def _logs(ledger: Ledger) -> list[Endpoint]:
    async def events(call: Call) -> list[RunEvent] | StreamingResponse:
        run = await resolve(ledger, call)
        last = call.request.headers.get("last-event-id", call.query.get("after", "0"))
        if not last.isdecimal() or len(last) > 9:
            raise InvalidInput(f"the last event's id must be a number, not {last!r}")
        by = (await ledger.state(run)).request.by
        if call.flag("follow"):
            items = veiling.told(ledger.follow(run, after=int(last)), call.identity, by)
            return sse.stream(_events(items))
        found = await ledger.events(run, after=int(last))
        return found if veiling.may_read(call.identity, by) else [veiling.veiled(event) for event in found]

    return [
        Endpoint(
            "GET",
            f"{ONE}/events",
            Permission.RUNS_READ,
            events,
            returns=list[RunEvent],
            summary="A run's log; with `follow=1` live, as events named event and delta, until the run has ended",
        ),
    ]


def _for_hosts(ledger: Ledger, hosted: Hosted, renewed: Renewed, require: RequirePermits) -> list[Endpoint]:
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
        await require(call.path["id"], request.events)
        return await ledger.append(call.path["id"], request.fence, request.after, request.events)

    async def lease(call: Call) -> LeaseGranted:
        request: LeaseRequest = call.body
        await _require_host(ledger, call)
        if request.release:
            await ledger.release(call.path["id"], request.fence)
            return LeaseGranted(0.0)
        lease_s = ledger.renew(call.path["id"], request.fence)
        await renewed(call.path["id"])
        return LeaseGranted(lease_s)

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


def with_waits(runs: Sequence[R], waits: Waits) -> list[R]:
    """`runs` with what each of them waits for now."""
    if all(run.state.ended for run in runs):
        return list(runs)
    wait_of = waits()
    return [structs.replace(run, wait=wait_of(run.id)) for run in runs]


async def resolve(ledger: Ledger, call: Call) -> str:
    """The run whose id, or the unique start of it, is in the path. Raises `InvalidInput` or `NotFound`."""
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

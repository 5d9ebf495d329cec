"""Jobs: submitted, listed, followed, cancelled, approved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from starlette.responses import Response

from llmagentos.api.job_control import MAX_HISTORY, MAX_KEY, Decision, JobChange
from llmagentos.api.jobs import BundleInfo, Job, JobRecord, JobRequest, JobSpec, JobSummary
from llmagentos.api.templates import Launch
from llmagentos.core.errors import Forbidden, InvalidInput
from llmagentos.core.events import Hub, Subscription
from llmagentos.fleet.job_news import JobNews
from llmagentos.fleet.jobs import Jobs
from llmagentos.fleet.looks import Looks
from llmagentos.security.identity import Identity, Kind, Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.sse import Event, stream
from llmagentos.storage.job_tables import ENDED

PAGE = 1000
"""Events read at once."""
PACE_S, MOST_PACE_S = 0.05, 2.0
PACE_OF_NODE_S = 0.0005
"""A follower reads all nodes of its job at each look: the more they are, the rarer."""
K = TypeVar("K", JobSpec, Launch)


def endpoints(jobs: Jobs, hub: Hub, *, bundle_bytes: int, several: bool) -> list[Endpoint]:
    """`jobs` decides and stores; `bundle_bytes` is the largest bundle that is taken.

    `several`: other servers may work on the same database.
    """
    return [*_bundles(jobs, bundle_bytes), *_people(jobs, hub, Looks(several=several)), *_control(jobs)]


def _bundles(jobs: Jobs, bundle_bytes: int) -> list[Endpoint]:
    async def upload(call: Call) -> BundleInfo:
        return await jobs.keep_bundle(call.path["digest"], call.body)

    async def bundle(call: Call) -> BundleInfo:
        return await jobs.bundle(call.path["digest"])

    return [
        Endpoint(
            "PUT",
            "/api/v1/bundles/{digest}",
            Permission.JOBS_WRITE,
            upload,
            body=bytes,
            returns=BundleInfo,
            summary="Store a playbook's directory (tar.gz) under its SHA-256",
            max_body=bundle_bytes,
        ),
        Endpoint(
            "GET",
            "/api/v1/bundles/{digest}",
            Permission.JOBS_READ,
            bundle,
            returns=BundleInfo,
            summary="Whether it is stored",
        ),
    ]


def _people(jobs: Jobs, hub: Hub, looks: Looks) -> list[Endpoint]:
    async def submit(call: Call) -> Job:
        asked = keyed(call, call.body)
        return await jobs.submit(asked.spec(), str(call.identity), vault=asked.vault)

    async def listing(call: Call) -> list[JobSummary]:
        before = int(call.number("before", 0, most=2**53)) or None
        limit = int(call.number("limit", 50, most=PAGE))
        return await jobs.listing(limit=limit, before=before, node=call.query.get("node"))

    async def show(call: Call) -> Job:
        return await jobs.show(job_number(call))

    async def cancel(call: Call) -> Job:
        return await jobs.cancel(job_number(call), str(call.identity))

    async def events(call: Call) -> Response | list[JobRecord]:
        job, after = job_number(call), int(call.number("after", 0, most=2**53))
        await jobs.show(job)
        if call.flag("follow"):
            last = call.request.headers.get("last-event-id", "")
            return stream(_follow(jobs, hub, looks, job, int(last) if last.isdigit() else after))
        return await jobs.events(job, after=after, limit=int(call.number("limit", PAGE, most=PAGE)))

    read, write = Permission.JOBS_READ, Permission.JOBS_WRITE
    return [
        Endpoint(
            "POST",
            "/api/v1/jobs",
            write,
            submit,
            body=JobRequest,
            returns=Job,
            summary="Check a playbook and queue it on its nodes",
            audited=True,
        ),
        Endpoint("GET", "/api/v1/jobs", read, listing, returns=list[JobSummary], summary="List jobs, newest first"),
        Endpoint("GET", "/api/v1/jobs/{id}", read, show, returns=Job, summary="One job"),
        Endpoint("POST", "/api/v1/jobs/{id}/cancel", write, cancel, returns=Job, summary="Cancel a job", audited=True),
        Endpoint(
            "GET",
            "/api/v1/jobs/{id}/events",
            read,
            events,
            returns=list[JobRecord],
            summary="A job's events; with follow=1 as a stream until the job ends",
            streams=True,
        ),
    ]


def _control(jobs: Jobs) -> list[Endpoint]:
    async def history(call: Call) -> list[JobChange]:
        after, limit = call.number("after", 0, most=2**31), call.number("limit", MAX_HISTORY, most=MAX_HISTORY)
        return await jobs.history(job_number(call), after=int(after), limit=int(limit))

    return [
        Endpoint(
            "GET",
            "/api/v1/jobs/{id}/history",
            Permission.JOBS_READ,
            history,
            returns=list[JobChange],
            summary="Who changed a job, its nodes and batches, and when",
        ),
        *(_decision(jobs, word, approved=word == "approve") for word in ("approve", "deny")),
    ]


def _decision(jobs: Jobs, word: str, *, approved: bool) -> Endpoint:
    async def decide(call: Call) -> Job:
        return await jobs.decide(job_number(call), str(call.identity), approved=approved, reason=call.body.reason)

    return Endpoint(
        "POST",
        f"/api/v1/jobs/{{id}}/{word}",
        Permission.JOBS_APPROVE,
        decide,
        body=Decision,
        returns=Job,
        summary=f"{word.capitalize()} a job that needs approval before it starts",
        audited=True,
    )


def keyed(call: Call, spec: K) -> K:
    """`spec` with the idempotency key of the header. Raises `InvalidInput` when both say different ones."""
    header = call.request.headers.get("idempotency-key")
    if header is None or header == spec.idempotency_key:
        return spec
    if spec.idempotency_key is not None:
        raise InvalidInput(f"the header Idempotency-Key says {header[:80]!r}, the request {spec.idempotency_key!r}")
    if not 0 < len(header) <= MAX_KEY:
        raise InvalidInput(f"an idempotency key has 1 to {MAX_KEY} characters, not {len(header)}")
    return msgspec.structs.replace(spec, idempotency_key=header)


async def _follow(jobs: Jobs, hub: Hub, looks: Looks, job: int, after: int) -> AsyncIterator[Event]:
    """The job, its events from storage and, woken by the hub, those that come; the job again when it changes."""
    with hub.subscribe(f"job:{job}", "nodes") as wakes, looks.waiting():
        shown: Job | None = None
        while True:
            current = await jobs.show(job)
            while records := await jobs.events(job, after=after, limit=PAGE):
                for record in records:
                    yield Event("event", record, str(record.id))
                after = records[-1].id
            if current != shown:
                shown = current
                yield Event("job", current)
            if current.summary.state in ENDED:
                return
            pace = min(MOST_PACE_S, max(PACE_S, len(current.hosts) * PACE_OF_NODE_S))
            if not await _woken(wakes, pace, looks.within(None)):
                return


async def _woken(wakes: Subscription, pace: float, look: float | None) -> bool:
    """Wait until something changed, and `pace` longer, but not for more of a job that ended. False at the end.

    After `look` seconds without anything it is time to look as well.
    """
    loop = asyncio.get_running_loop()
    try:
        item = await wakes.next(look)
        until = loop.time() + pace
        while not (isinstance(item, JobNews) and item.ended) and (left := until - loop.time()) > 0:
            item = await wakes.next(left)
        while True:
            await wakes.next(0)
    except TimeoutError:
        return True
    except StopAsyncIteration:
        return False


def node_name(identity: Identity) -> str:
    """The node that calls. Raises `Forbidden` for anybody else: only a node has a queue."""
    if identity.kind is not Kind.NODE:
        raise Forbidden(f"{identity} is not a node", hint="`llmctl node join` makes this machine one")
    return identity.subject


def job_number(call: Call) -> int:
    """The job in the path. Raises `InvalidInput`."""
    text = call.path["id"]
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InvalidInput(f"{text[:80]!r} is not a job's number", hint="`llmctl jobs` lists them")
    return int(text)

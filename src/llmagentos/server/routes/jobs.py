"""Jobs: submitted, listed, followed, cancelled; and a node's own queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import Response

from llmagentos.api.jobs import (
    Ack,
    BundleInfo,
    Claim,
    Claimed,
    Events,
    Fence,
    Finish,
    Job,
    JobRecord,
    JobSpec,
    JobSummary,
)
from llmagentos.core.errors import Forbidden, InvalidInput
from llmagentos.core.events import Hub, Subscription
from llmagentos.fleet.jobs import Jobs
from llmagentos.security.identity import Identity, Kind, Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.sse import Event, stream
from llmagentos.storage.jobs import ENDED

PAGE = 1000
"""Events read at once."""
PACE_S = 0.05


def endpoints(jobs: Jobs, hub: Hub, *, bundle_bytes: int) -> list[Endpoint]:
    """`jobs` decides and stores; `bundle_bytes` is the largest bundle that is taken."""
    return [*_bundles(jobs, bundle_bytes), *_people(jobs, hub), *_queue(jobs)]


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


def _people(jobs: Jobs, hub: Hub) -> list[Endpoint]:
    async def submit(call: Call) -> Job:
        return await jobs.submit(call.body, str(call.identity))

    async def listing(call: Call) -> list[JobSummary]:
        before = int(call.number("before", 0, most=2**53)) or None
        limit = int(call.number("limit", 50, most=PAGE))
        return await jobs.listing(limit=limit, before=before, node=call.query.get("node"))

    async def show(call: Call) -> Job:
        return await jobs.show(_id(call))

    async def cancel(call: Call) -> Job:
        return await jobs.cancel(_id(call), str(call.identity))

    async def events(call: Call) -> Response | list[JobRecord]:
        job, after = _id(call), int(call.number("after", 0, most=2**53))
        await jobs.show(job)
        if call.flag("follow"):
            last = call.request.headers.get("last-event-id", "")
            return stream(_follow(jobs, hub, job, int(last) if last.isdigit() else after))
        return await jobs.events(job, after=after, limit=int(call.number("limit", PAGE, most=PAGE)))

    read, write = Permission.JOBS_READ, Permission.JOBS_WRITE
    return [
        Endpoint(
            "POST",
            "/api/v1/jobs",
            write,
            submit,
            body=JobSpec,
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


async def _follow(jobs: Jobs, hub: Hub, job: int, after: int) -> AsyncIterator[Event]:
    """The job, its events from storage and, woken by the hub, those that come; the job again when it changes."""
    with hub.subscribe(f"job:{job}", "nodes") as wakes:
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
            if not await _woken(wakes):
                return


async def _woken(wakes: Subscription) -> bool:
    """Wait until something changed, and a moment longer: what comes in bursts is read at once. False at the end."""
    try:
        await wakes.next()
        await asyncio.sleep(PACE_S)
        while True:
            await wakes.next(0)
    except TimeoutError:
        return True
    except StopAsyncIteration:
        return False


def _queue(jobs: Jobs) -> list[Endpoint]:
    async def claim(call: Call) -> Claimed:
        return await jobs.claim(node_name(call.identity), wait=call.body.wait)

    async def renew(call: Call) -> Ack:
        return await jobs.renew(node_name(call.identity), _id(call), call.body.fence)

    async def append(call: Call) -> Ack:
        return await jobs.append(node_name(call.identity), _id(call), call.body.fence, call.body.events)

    async def finish(call: Call) -> None:
        await jobs.finish(node_name(call.identity), _id(call), call.body)

    async def download(call: Call) -> Response:
        node, digest = node_name(call.identity), call.path["digest"]
        content = await jobs.bundle_content(digest) if await jobs.may_read(node, digest) else None
        if content is None:
            raise Forbidden(f"no job in the queue of node {node!r} needs the bundle {digest}")
        return Response(content, media_type="application/gzip")

    work, queue = Permission.NODE_WORK, "/api/v1/nodes/self/queue"
    return [
        Endpoint(
            "POST",
            f"{queue}/claim",
            work,
            claim,
            body=Claim,
            returns=Claimed,
            summary="The calling node's next job; waits for one",
        ),
        Endpoint("PUT", f"{queue}/{{id}}/lease", work, renew, body=Fence, returns=Ack, summary="Keep a claimed job"),
        Endpoint(
            "POST",
            f"{queue}/{{id}}/events",
            work,
            append,
            body=Events,
            returns=Ack,
            summary="Append events of a claimed job",
        ),
        Endpoint("POST", f"{queue}/{{id}}/finish", work, finish, body=Finish, summary="Report a claimed job's end"),
        Endpoint(
            "GET",
            "/api/v1/nodes/self/bundles/{digest}",
            work,
            download,
            summary="A bundle that a job in the calling node's queue needs",
        ),
    ]


def node_name(identity: Identity) -> str:
    """The node that calls. Raises `Forbidden` for anybody else: only a node has a queue."""
    if identity.kind is not Kind.NODE:
        raise Forbidden(f"{identity} is not a node", hint="`llmctl node join` makes this machine one")
    return identity.subject


def _id(call: Call) -> int:
    text = call.path["id"]
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InvalidInput(f"{text[:80]!r} is not a job's number", hint="`llmctl jobs` lists them")
    return int(text)

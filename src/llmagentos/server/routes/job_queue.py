"""A node's own queue: its next job, the lease on it, its events and its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from llmagentos.api.jobs import Ack, Claim, Claimed, Events, Fence, Finish
from llmagentos.core.errors import Forbidden
from llmagentos.fleet.job_queues import NodeQueues
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.jobs import job_number, node_name


def endpoints(queues: NodeQueues, bundle_content: Callable[[str], Awaitable[bytes | None]]) -> list[Endpoint]:
    """`queues` hands out and takes back; `bundle_content` are the bytes of a playbook's directory."""

    async def claim(call: Call) -> Claimed:
        return await queues.claim(node_name(call.identity), wait=call.body.wait)

    async def renew(call: Call) -> Ack:
        return await queues.renew(node_name(call.identity), job_number(call), call.body.fence)

    async def append(call: Call) -> Ack:
        return await queues.append(node_name(call.identity), job_number(call), call.body.fence, call.body.events)

    async def finish(call: Call) -> None:
        await queues.finish(node_name(call.identity), job_number(call), call.body)

    async def download(call: Call) -> Response:
        node, digest = node_name(call.identity), call.path["digest"]
        content = await bundle_content(digest) if await queues.may_read(node, digest) else None
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

"""What the nodes of a job whose plays span them tell each other."""

from __future__ import annotations

from llmagentos.api.plays import POLL_S, Kept, Shared, Shares
from llmagentos.fleet.plays import Plays
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.jobs import job_number, node_name

MAX_BODY = 4 * 1024 * 1024


def endpoints(plays: Plays) -> list[Endpoint]:
    """For the nodes that hold a job; `plays` refuses all others."""

    async def share(call: Call) -> Kept:
        node, job = node_name(call.identity), job_number(call)
        return await plays.share(node, job, call.body.fence, call.body.first_seq, call.body.shares)

    async def shared(call: Call) -> Shared:
        node, job, after = node_name(call.identity), job_number(call), int(call.number("after", 0, most=2**53))
        fence = int(call.number("fence", 0, most=2**53))
        gone, wait = int(call.number("gone", 0, most=2**31)), call.number("wait", POLL_S, most=60)
        return await plays.shared(node, job, fence, after=after, gone=gone, wait=wait)

    path = "/api/v1/nodes/self/queue/{id}/shares"
    return [
        Endpoint(
            "POST",
            path,
            Permission.NODE_WORK,
            share,
            body=Shares,
            returns=Kept,
            summary="Tell the other nodes of a claimed job what its tasks came to",
            max_body=MAX_BODY,
        ),
        Endpoint(
            "GET",
            path,
            Permission.NODE_WORK,
            shared,
            returns=Shared,
            summary="What all nodes of a claimed job told; waits for more",
        ),
    ]

"""What waits for a person: listed and answered."""

from __future__ import annotations

from llmagentos.agents import veiling
from llmagentos.api.approvals import Answer, Answered, Approval
from llmagentos.security.identity import Permission
from llmagentos.server.approving import Approving
from llmagentos.server.endpoint import Call, Endpoint


def endpoints(approvals: Approving) -> list[Endpoint]:
    """Only people answer: no run, and no module that carries runs on, has the permission."""

    async def listing(call: Call) -> list[Approval]:
        return [veiling.asked(each, call.identity) for each in await approvals.listing()]

    async def approve(call: Call) -> Answered:
        answer: Answer = call.body
        return await approvals.approve(call.path["id"], call.identity, answer.reason)

    async def deny(call: Call) -> Answered:
        answer: Answer = call.body
        return await approvals.deny(call.path["id"], call.identity, answer.reason)

    return [
        Endpoint(
            "GET",
            "/api/v1/approvals",
            Permission.RUNS_READ,
            listing,
            returns=list[Approval],
            summary="Tool calls and jobs that wait for a person, the oldest first",
        ),
        Endpoint(
            "POST",
            "/api/v1/approvals/{id}/approve",
            Permission.RUNS_APPROVE,
            approve,
            body=Answer,
            returns=Answered,
            summary="Let a tool call be made, or a job begin",
            audited=True,
        ),
        Endpoint(
            "POST",
            "/api/v1/approvals/{id}/deny",
            Permission.RUNS_APPROVE,
            deny,
            body=Answer,
            returns=Answered,
            summary="Have a tool call not be made (the agent is told why), or a job not begin",
            audited=True,
        ),
    ]

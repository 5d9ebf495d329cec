"""Tool calls that wait for a person: listed and answered."""

from __future__ import annotations

from llmagentos.agents.approvals import Approvals
from llmagentos.api.approvals import Answer, Answered, Approval
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint


def endpoints(approvals: Approvals) -> list[Endpoint]:
    """Only people answer: no run, and no module that carries runs on, has the permission."""

    async def listing(_: Call) -> list[Approval]:
        return approvals.listing()

    async def approve(call: Call) -> Answered:
        answer: Answer = call.body
        return await approvals.approve(call.path["id"], by=str(call.identity), reason=answer.reason)

    async def deny(call: Call) -> Answered:
        answer: Answer = call.body
        return await approvals.deny(call.path["id"], by=str(call.identity), reason=answer.reason)

    return [
        Endpoint(
            "GET",
            "/api/v1/approvals",
            Permission.RUNS_READ,
            listing,
            returns=list[Approval],
            summary="Tool calls that wait for a person, the oldest first",
        ),
        Endpoint(
            "POST",
            "/api/v1/approvals/{id}/approve",
            Permission.RUNS_APPROVE,
            approve,
            body=Answer,
            returns=Answered,
            summary="Let a tool call be made",
            audited=True,
        ),
        Endpoint(
            "POST",
            "/api/v1/approvals/{id}/deny",
            Permission.RUNS_APPROVE,
            deny,
            body=Answer,
            returns=Answered,
            summary="Have a tool call not be made; the agent is told why",
            audited=True,
        ),
    ]

"""Budgets: shown, set, taken away."""

from __future__ import annotations

from llmagentos.api.budgets import Budget, Budgets, BudgetSpec
from llmagentos.llm.budget_limits import BudgetLimits
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint

_ONE = "/api/v1/budgets/{path:path}"


def endpoints(limits: BudgetLimits) -> list[Endpoint]:
    """`limits` holds the tree's limits and knows how far they are used."""

    async def listing(_: Call) -> Budgets:
        return limits.listing()

    async def below(call: Call) -> Budgets:
        return limits.listing(call.path["path"])

    async def put(call: Call) -> Budget:
        return await limits.put(call.path["path"], call.body, by=str(call.identity))

    async def delete(call: Call) -> None:
        await limits.delete(call.path["path"])

    read, write = Permission.BUDGETS_READ, Permission.BUDGETS_WRITE
    return [
        Endpoint(
            "GET", "/api/v1/budgets", read, listing, returns=Budgets, summary="The tree of budgets and who waits for it"
        ),
        Endpoint("GET", _ONE, read, below, returns=Budgets, summary="The budgets at and below a path"),
        Endpoint(
            "PUT",
            _ONE,
            write,
            put,
            body=BudgetSpec,
            returns=Budget,
            summary="Replace the limits of a node",
            audited=True,
        ),
        Endpoint("DELETE", _ONE, write, delete, summary="Take all limits of a node away", audited=True),
    ]

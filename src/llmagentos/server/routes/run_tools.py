"""Tools that the server calls for the runs that modules carry on."""

from __future__ import annotations

from llmagentos.agents.hosted import require_own
from llmagentos.agents.ledger import Ledger
from llmagentos.agents.run_tools import RunTools
from llmagentos.api.hosting import ToolCall, ToolOffer, ToolResult, ToolsRequest
from llmagentos.security.identity import Permission
from llmagentos.server.connected import while_connected
from llmagentos.server.endpoint import Call, Endpoint

_PATH = "/api/v1/runs/{id}/tools"
_MAX_CALL = 2 * 1024 * 1024


def endpoints(ledger: Ledger, tools: RunTools) -> list[Endpoint]:
    """`ledger` knows whose run it is."""

    async def offered(call: Call) -> list[ToolOffer]:
        require_own(call.identity, await ledger.host_of(call.path["id"]))
        request: ToolsRequest = call.body
        return await tools.offered(call.path["id"], request.fence, call.identity)

    async def made(call: Call) -> ToolResult:
        require_own(call.identity, await ledger.host_of(call.path["id"]))
        # A host that lost its run, or died, hangs up: nobody would get the result.
        return ToolResult(await while_connected(call.request, tools.call(call.path["id"], call.body, call.identity)))

    execute = Permission.RUNS_EXECUTE
    return [
        Endpoint(
            "POST",
            _PATH,
            execute,
            offered,
            body=ToolsRequest,
            returns=list[ToolOffer],
            summary="The tools that the server calls for a run that the caller holds the lease of",
        ),
        Endpoint(
            "POST",
            f"{_PATH}/call",
            execute,
            made,
            body=ToolCall,
            returns=ToolResult,
            summary="Have the server make a tool call that the run's log has as begun",
            max_body=_MAX_CALL,
        ),
    ]

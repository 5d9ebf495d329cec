"""Long-term memory: people see and forget their own, hosts remember and recall for the runs that they carry on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from llmagentos.agents.hosted import require_own
from llmagentos.agents.memory import Memory, Scope
from llmagentos.agents.memory_tools import RunMemory
from llmagentos.api.memory import Fact, NewFact, RunFact, RunQuery
from llmagentos.core.errors import InvalidInput, NotFound
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.sessions import user_of
from llmagentos.storage.memory import FactRecords

_MOST = 50

ScopeOf = Callable[[str, str], Awaitable[Scope]]
"""`await scope_of(agent, user)`. Raises `NotFound` for an unknown agent, `InvalidInput` for one without memory."""
HostOf = Callable[[str], Awaitable[str]]


def endpoints(
    records: FactRecords, memory: Memory, run_memory: RunMemory, scope_of: ScopeOf, host_of: HostOf
) -> list[Endpoint]:
    """`host_of` says whose run it is."""
    return [*_for_people(records, memory, scope_of), *_for_hosts(run_memory, host_of)]


def _for_people(records: FactRecords, memory: Memory, scope_of: ScopeOf) -> list[Endpoint]:
    async def listing(call: Call) -> list[Fact]:
        agent, query, user = call.query.get("agent"), call.query.get("query"), user_of(call)
        if query is None:
            return await records.listing(user, agent)
        if agent is None:
            raise InvalidInput("a search is of one agent's memory: `agent` is missing")
        limit = max(1, int(call.number("limit", 5, most=_MOST)))
        return await memory.recall(await scope_of(agent, user), query, limit=limit)

    async def add(call: Call) -> Fact:
        fact: NewFact = call.body
        return await memory.remember(await scope_of(fact.agent, str(call.identity)), fact.text, fact.tags)

    async def forget(call: Call) -> None:
        if not await records.forget(user_of(call), fact=call.path["id"]):
            raise NotFound(f"there is no fact {call.path['id']!r} of yours", hint="`llmctl memory list` lists them")

    async def forget_all(call: Call) -> None:
        agent = call.query.get("agent")
        if not agent:
            raise InvalidInput("`agent` is missing", hint="whose memory of you is meant?")
        await records.forget(user_of(call), agent=agent)

    read, write = Permission.MEMORY_READ, Permission.MEMORY_WRITE
    all_, one = "/api/v1/memory", "/api/v1/memory/{id}"
    return [
        Endpoint(
            "GET",
            all_,
            read,
            listing,
            returns=list[Fact],
            summary="What agents remember of the caller (`agent`); with `query` what fits it, best first (`limit`)",
        ),
        Endpoint(
            "POST", all_, write, add, body=NewFact, returns=Fact, summary="Have an agent remember a fact", audited=True
        ),
        Endpoint("DELETE", one, write, forget, summary="Forget a fact", audited=True),
        Endpoint(
            "DELETE", all_, write, forget_all, summary="Forget all that `agent` knows of the caller", audited=True
        ),
    ]


def _for_hosts(memory: RunMemory, host_of: HostOf) -> list[Endpoint]:
    async def remember(call: Call) -> Fact:
        require_own(call.identity, await host_of(call.path["id"]))
        return await memory.remember(call.path["id"], call.body)

    async def recall(call: Call) -> list[Fact]:
        require_own(call.identity, await host_of(call.path["id"]))
        query: RunQuery = call.body
        return await memory.recall(call.path["id"], query.query)

    execute, path = Permission.RUNS_EXECUTE, "/api/v1/runs/{id}/memory"
    return [
        Endpoint(
            "POST", path, execute, remember, body=RunFact, returns=Fact, summary="Remember a fact for a run's caller"
        ),
        Endpoint(
            "POST",
            f"{path}/search",
            execute,
            recall,
            body=RunQuery,
            returns=list[Fact],
            summary="What is remembered for a run's caller and fits a query",
        ),
    ]

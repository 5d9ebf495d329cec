"""Agents: applied, listed, deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from llmagentos.agents.control import Control
from llmagentos.agents.hosted import Hosted
from llmagentos.agents.ledger import SERVER
from llmagentos.api.agents import AgentInfo, AgentSpec, Applied, ToolInfo
from llmagentos.core.errors import InvalidInput, NotFound, nearest
from llmagentos.security.identity import Identity, Kind, Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.storage.agents import AgentRecord, AgentRecords

Check = Callable[[AgentSpec], Awaitable[list[str]]]
"""Warnings about a definition; raises `InvalidInput` for one that can never work."""


_ONE = "/api/v1/agents/{name}"
ToolsNow = Callable[[AgentSpec, Sequence[str], Identity | None], Awaitable[list[ToolInfo]]]
"""What an agent with these functions may call now; of the server's own, or of the module that came as who is named."""


def endpoints(
    records: AgentRecords, control: Control, hosted: Hosted, check: Check, tools_now: ToolsNow
) -> list[Endpoint]:
    """`records` hold the definitions, `control` ends their runs, `hosted` knows which modules are there."""

    async def apply(call: Call) -> Applied:
        spec: AgentSpec = call.body
        if spec.name != call.path["name"]:
            raise InvalidInput(f"the definition is of {spec.name!r}, the address says {call.path['name']!r}")
        warnings = await check(spec)
        record, change = await records.put(spec, host=SERVER, by=str(call.identity))
        return Applied(info(record, hosted), change, warnings)

    async def delete(call: Call) -> None:
        record = await found(records, call.path["name"])
        await records.delete(record.name)
        hosted.forget(record.name)
        await control.kill_all_of(record.name, by=str(call.identity))

    write = Permission.AGENTS_WRITE
    return [
        *_looking(records, hosted, tools_now),
        Endpoint(
            "PUT",
            _ONE,
            write,
            apply,
            body=AgentSpec,
            returns=Applied,
            summary="Create an agent or give it a new version",
            audited=True,
        ),
        Endpoint("DELETE", _ONE, write, delete, summary="Delete an agent and stop its runs", audited=True),
    ]


def _looking(records: AgentRecords, hosted: Hosted, tools_now: ToolsNow) -> list[Endpoint]:
    async def listing(_: Call) -> list[AgentInfo]:
        return [info(record, hosted) for record in await records.all()]

    async def get(call: Call) -> AgentInfo:
        return info(await found(records, call.path["name"]), hosted)

    async def versions(call: Call) -> list[AgentInfo]:
        await found(records, call.path["name"])
        return [info(record, hosted) for record in await records.versions(call.path["name"])]

    async def tools(call: Call) -> list[ToolInfo]:
        record = await found(records, call.path["name"])
        kind, _, subject = record.updated_by.partition(":")
        by = Identity(Kind(kind), subject) if record.host != SERVER else None
        return await tools_now(record.spec, record.functions, by)

    read = Permission.AGENTS_READ
    return [
        Endpoint("GET", "/api/v1/agents", read, listing, returns=list[AgentInfo], summary="List agents"),
        Endpoint("GET", _ONE, read, get, returns=AgentInfo, summary="Show one agent"),
        Endpoint(
            "GET",
            f"{_ONE}/versions",
            read,
            versions,
            returns=list[AgentInfo],
            summary="The versions of an agent that are kept, newest first",
        ),
        Endpoint(
            "GET",
            f"{_ONE}/tools",
            read,
            tools,
            returns=list[ToolInfo],
            summary="What the agent may call now, with where each tool comes from and its schema",
        ),
    ]


async def found(records: AgentRecords, name: str) -> AgentRecord:
    """The agent in force. Raises `NotFound` with the nearest that exists."""
    record = await records.current(name)
    if record is None:
        close = nearest(name, [known.name for known in await records.all()])
        raise NotFound(
            f"there is no agent {name!r}",
            hint=f"did you mean {close!r}?" if close else "`llmctl agents` lists agents, `llmctl apply -f` makes one",
        )
    return record


def info(record: AgentRecord, hosted: Hosted) -> AgentInfo:
    """A stored agent as it is shown."""
    return AgentInfo(
        record.name,
        record.version,
        record.host,
        hosted.online(record.host),
        record.updated,
        record.updated_by,
        record.spec,
        record.functions,
    )

"""Tools that only the server has (MCP servers, other agents, playbooks, remote agents), for runs that modules carry on.

A module asks as itself, for a run that it holds the lease of, and only for calls that the run's log has as begun:
what was agreed to and what is denied is looked up here, not believed. What happens inside of the module (its own
functions, its calls of services) is not seen here; of those the log's `tool_called` is all that can be refused.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import msgspec

from llmagentos.agents import permits
from llmagentos.agents.absent import Absent
from llmagentos.agents.ledger import Ledger
from llmagentos.agents.log import Log
from llmagentos.agents.records import SpecOf
from llmagentos.agents.sessions import caller_of
from llmagentos.agents.tools import CalledBy, Source, Tool
from llmagentos.api.agents import AgentSpec, ToolOptions, ToolUse
from llmagentos.api.hosting import ToolCall, ToolOffer
from llmagentos.api.runs import Data, ToolCalled
from llmagentos.core.errors import Conflict, DeadlineExceeded, Forbidden, NotFound, TooLarge
from llmagentos.security.identity import Identity, Permission

MOST_RESULT = 8 * 1024 * 1024
"""Bytes of JSON that go back to a module; what of it the model reads is bounded there."""
_REMEMBER = 10_000

Grants = Mapping[str, Sequence[str]]
"""What the agents of modules may use, by the module's name; patterns both."""


class RunTools:
    """Calls tools of `sources` (by kind) for runs of `ledger` as far as `grants` go."""

    def __init__(
        self, ledger: Ledger, spec_of: SpecOf, sources: Mapping[str, Source], grants: Grants, absent: Absent
    ) -> None:
        self._ledger = ledger
        self._spec_of = spec_of
        self._sources = sources
        self._grants = grants
        self._absent = absent
        self._made: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def offered(self, run: str, fence: int, by: Identity) -> list[ToolOffer]:
        """What there is for the run. Raises `Forbidden`, `LeaseLost`, `RunEnded`, and what hinders a tool."""
        spec = await self._spec(await self._ledger.held(run, fence))
        return await self._absent.watched(run, self._offers(spec, by))

    async def _offers(self, spec: AgentSpec, by: Identity) -> list[ToolOffer]:
        offers: list[ToolOffer] = []
        for number, use in enumerate(spec.tools):
            if use.kind != "service":
                offers += [
                    ToolOffer(number, tool.name, tool.doc, dict(tool.parameters), tool.idempotent, tool.finds)
                    for tool in await self._of(use, by)
                ]
        return offers

    async def call(self, run: str, asked: ToolCall, by: Identity) -> object:
        """The result of a call that the log has as begun.

        Raises `Forbidden` or `Conflict` when it may not be made (again), `DeadlineExceeded`, and what the tool raises.
        """
        state = await self._ledger.held(run, asked.fence)
        called = next((each for each in state.open_tools if each.call_id == asked.call_id), None)
        if called is None:
            raise Conflict(f"the run {run} has no call {asked.call_id!r} under way", run=run)
        told = ToolCalled(called.call_id, called.name, asked.arguments)
        if [called] != await self._ledger.around.vaults.redacted(run, state.request, [told]):
            raise Conflict(f"the call {asked.call_id!r} of the run {run} has other arguments", run=run)
        tool = await self._tool(await self._spec(state), called.name, by)
        await self._require_permit(run, state, called, tool.options)
        await self._ledger.held(run, asked.fence)  # it may have been killed while the tool was looked for
        self._once((run, called.call_id), tool, again=asked.again)
        try:
            async with asyncio.timeout(asked.timeout):
                result = await tool.invoke(asked.arguments, asked.timeout, CalledBy(run, called.call_id, asked.again))
        except TimeoutError:
            raise DeadlineExceeded(f"no result within {asked.timeout:.3g} s") from None
        if (size := len(msgspec.json.encode(result))) > MOST_RESULT:
            raise TooLarge(f"the result of {called.name} has {size} bytes, more than {MOST_RESULT}")
        return result

    async def require(self, run: str, data: Sequence[Data]) -> None:
        """Raises `Forbidden` for calls among `data` that the run's agent may not make, or not without approval."""
        calls = [item for item in data if isinstance(item, ToolCalled)]
        if not calls:
            return
        state = await self._ledger.state(run)
        spec = await self._spec_of(state.request.agent, state.request.version)
        for called in calls:
            use = permits.entry_of(spec, called.name) if spec is not None else None
            if use is not None:
                await self._require_permit(run, state, called, use)

    async def _require_permit(self, run: str, state: Log, called: ToolCalled, options: ToolOptions) -> None:
        caller = await caller_of(self._ledger.state, run)
        by = permits.patterns(self._ledger.deny, caller)
        if not permits.allowed(options.allow, caller) or permits.denied(called.name, by):
            raise Forbidden(f"the tool {called.name!r} is not for the runs of {caller}", run=run)
        if options.approval is not None and called.call_id not in state.agreed:
            raise Forbidden(f"nobody agreed to the call {called.call_id!r} of {called.name!r}", run=run)

    async def _spec(self, state: Log) -> AgentSpec:
        spec: AgentSpec | None = await self._spec_of(state.request.agent, state.request.version)
        if spec is None:
            raise NotFound(f"the agent {state.request.agent!r} was deleted")
        return spec

    async def _tool(self, spec: AgentSpec, name: str, by: Identity) -> Tool:
        entry = permits.entry_of(spec, name)
        unnamed = [use for use in spec.tools if use.kind == "a2a" and use.name is None]
        for use in [entry] if entry is not None else unnamed:
            if use.kind == "service":
                break
            for tool in await self._of(use, by):
                if tool.name == name:
                    return tool
        raise NotFound(f"the server has no tool {name!r} for the agent {spec.name!r}")

    async def _of(self, use: ToolUse, by: Identity) -> list[Tool]:
        require_grant(self._grants, by, use.source)
        return [tool.under(use) for tool in await self._sources[use.kind](use)]

    def _once(self, call: tuple[str, str], tool: Tool, *, again: bool) -> None:
        """A call that must not be repeated is made once, however often it is asked for."""
        if call in self._made and not (tool.idempotent or (tool.finds and again)):
            raise Conflict(f"the call {call[1]!r} of the run {call[0]} was made already", run=call[0])
        self._made[call] = None
        while len(self._made) > _REMEMBER:
            self._made.popitem(last=False)


def require_grant(grants: Grants, by: Identity, source: str) -> None:
    """Raises `Forbidden` when the agents of the module `by` may not use `source`.

    Who may define agents needs no grant: the server would call the same for an agent of theirs in YAML.
    """
    if not by.may(Permission.AGENTS_WRITE) and not permits.granted(grants, by.subject, source):
        raise Forbidden(
            f"agents of the module {by.subject!r} may not use {source}",
            hint=f"`tools: {{modules: {{{by.subject}: [{source!r}]}}}}` in llmagentos.yaml allows it",
        )

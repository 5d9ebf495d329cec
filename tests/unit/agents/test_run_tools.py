"""Tools that the server calls for the runs of modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmagentos.agents.absent import Absent
from llmagentos.agents.run_tools import RunTools
from llmagentos.agents.states import RunEnded
from llmagentos.agents.tools import CalledBy, Tool
from llmagentos.api.agents import AgentSpec, ToolUse
from llmagentos.api.hosting import ToolCall
from llmagentos.api.runs import ToolCalled
from llmagentos.core.errors import Conflict
from llmagentos.security.identity import Identity, Kind
from support.house import MODULE, house

pytestmark = pytest.mark.anyio
SHOP = Identity(Kind.MODULE, "shop")
SELLER = AgentSpec(name="seller", tools=[ToolUse(mcp="desk")])


@pytest.mark.parametrize("killed", [False, True])
async def test_a_run_that_was_killed_while_its_tool_was_looked_for_calls_none(tmp_path: Path, killed: bool) -> None:
    async with house(tmp_path) as h:
        await h.agents.put(SELLER, host=MODULE, by="module:shop")
        run = await h.ask(name="seller")
        claim = await h.taken("shop/1", MODULE)
        await h.ledger.append(run, claim.fence, claim.events[-1].seq, [ToolCalled("call-1", "desk.pay", {})])
        made: list[str] = []

        async def invoke(_: Mapping[str, Any], __: float, by: CalledBy) -> Any:
            made.append(by.call_id)
            return "paid"

        async def source(_: ToolUse) -> Sequence[Tool]:
            if killed:
                await h.control.kill(run, by="admin:me")
            return [Tool("desk.pay", "Pays.", {"type": "object"}, False, invoke)]

        async def spec_of(_: str, __: int) -> AgentSpec:
            return SELLER

        tools = RunTools(h.ledger, spec_of, {"mcp": source}, {"shop": ["mcp:desk"]}, Absent(h.ledger.state))
        asked = ToolCall(claim.fence, "call-1", {}, 5.0)
        if killed:
            with pytest.raises(RunEnded):
                await tools.call(run, asked, SHOP)
            assert made == []
            return
        assert await tools.call(run, asked, SHOP) == "paid"
        with pytest.raises(Conflict, match="was made already"):
            await tools.call(run, asked, SHOP)
        assert made == ["call-1"]

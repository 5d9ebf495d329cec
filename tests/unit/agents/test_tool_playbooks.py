"""A playbook as a tool: what the model may say reaches Ansible only within the definition's bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmagentos.agents.tool_playbooks import PlaybookCall, PlaybookTools
from llmagentos.agents.tools import CalledBy, Tool
from llmagentos.api.agents import ToolUse
from llmagentos.core.errors import ConfigError, InvalidInput

BUNDLE = "a" * 64
WORD = {"type": "string", "pattern": "^[a-z]+$"}


def tool(**more: Any) -> tuple[Tool, list[PlaybookCall]]:
    calls: list[PlaybookCall] = []

    async def run(call: PlaybookCall) -> Any:
        calls.append(call)
        return "done"

    use = ToolUse(playbook="plays/restart web.yml", bundle=BUNDLE, **more)
    (made,) = asyncio.run(PlaybookTools(run).tools(use))
    return made, calls


def invoke(made: Tool, **arguments: Any) -> Any:
    return asyncio.run(made.invoke(arguments, 10.0, CalledBy("run1", "call-2")))


def test_a_call_is_a_job_with_a_key_of_its_own() -> None:
    made, calls = tool(nodes=["web1"], vars={"word": WORD, "count": {"type": "integer", "default": 2}})
    assert made.name == "restart-web"
    assert made.idempotent
    assert made.parameters["required"] == ["word"]
    assert invoke(made, word="go") == "done"
    (call,) = calls
    assert (call.playbook, call.nodes, call.vars) == ("restart web.yml", ["web1"], {"word": "go", "count": 2})
    assert (call.key, call.by) == ("run:run1:call-2", "run:run1")


def test_nodes_may_be_the_models_choice_but_only_by_name() -> None:
    made, calls = tool()
    assert made.parameters["required"] == ["nodes"]
    invoke(made, nodes=["web1", "web2", "web1"])
    assert calls[0].nodes == ["web1", "web2"]
    for wrong in (["all"], ["web*"], ["!web1"], ["a:b"], [], "web1", [1], None):
        with pytest.raises(InvalidInput, match="names of nodes"):
            invoke(made, nodes=wrong)


@pytest.mark.parametrize(
    "value", ["{{ lookup('pipe', 'id') }}", "a{%b", "{#", ["{{x}}"], {"a": {"b": "{{x}}"}}, {"{{k}}": 1}]
)
def test_what_ansible_would_evaluate_is_refused(value: Any) -> None:
    made, calls = tool(nodes=["a"], vars={"free": {}})
    with pytest.raises(InvalidInput, match="must not have"):
        invoke(made, free=value)
    assert calls == []


def test_variables_are_those_of_the_definition_within_their_pattern() -> None:
    made, _ = tool(nodes=["a"], vars={"word": WORD})
    with pytest.raises(InvalidInput, match="none of the variables"):
        invoke(made, ansible_become="yes")
    with pytest.raises(InvalidInput, match="must fit"):
        invoke(made, word="rm -rf /")


def test_a_definition_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="cannot be called 'nodes'"):
        tool(vars={"nodes": {}})
    with pytest.raises(ConfigError, match="was not uploaded"):
        asyncio.run(PlaybookTools(lambda _: None).tools(ToolUse(playbook="x.yml")))  # type: ignore[arg-type, return-value]


def test_a_pattern_that_would_take_years_is_given_up_and_nothing_waits_for_it() -> None:
    word = {"type": "string", "pattern": "^(a+)+$"}
    made, calls = tool(nodes=["web1"], vars={"word": word})
    ticks = 0

    async def main() -> None:
        nonlocal ticks
        asked = asyncio.create_task(
            made.invoke({"word": "a" * 60 + "!"}, 10.0, CalledBy("run1", "call-2"))  # type: ignore[arg-type]
        )
        while not asked.done():
            await asyncio.sleep(0.01)
            ticks += 1
        with pytest.raises(InvalidInput, match="takes too long"):
            await asked

    asyncio.run(main())
    assert ticks > 10
    assert not calls

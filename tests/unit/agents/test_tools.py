"""Tools: functions and service methods behind one face; the choice among them."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from llmagentos.agents import routing
from llmagentos.agents.agent import Agent
from llmagentos.agents.choosing import Call, Ready, Unusable, parse, schema
from llmagentos.agents.tools import CalledBy, function_tool, tool
from llmagentos.api.agents import Limits, ToolUse
from llmagentos.core.errors import ConfigError, InvalidInput, ServiceError
from unit.agents.conftest import tools_of


@dataclass
class Box:
    """A box."""

    width: int
    label: str = "none"


def pack(box: Box, count: int = 1) -> list[Box]:
    """Packs boxes."""
    return [box] * count


async def later(text: str) -> str:
    """Says it later."""
    await asyncio.sleep(0)
    return text


def test_a_schema_comes_from_the_type_hints() -> None:
    made = function_tool(pack)
    assert made.parameters["required"] == ["box"]
    assert made.parameters["$defs"]["Box"]["properties"]["width"] == {"type": "integer"}
    assert made.doc == "Packs boxes."


def test_arguments_are_converted_and_results_are_plain() -> None:
    made = function_tool(pack)
    found = asyncio.run(made.invoke({"box": {"width": 3, "label": "a"}, "count": 2}, 5, CalledBy("run", "call-1")))
    assert found == [{"width": 3, "label": "a"}] * 2
    assert asyncio.run(function_tool(later).invoke({"text": "hi"}, 5, CalledBy("run", "call-1"))) == "hi"


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InvalidInput, match="width"):
        asyncio.run(function_tool(pack).invoke({"box": {"width": "x"}}, 5, CalledBy("run", "call-1")))


def test_a_tool_that_never_ends_is_given_up() -> None:
    async def stuck() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(function_tool(stuck).invoke({}, 0.01, CalledBy("run", "call-1")))


def test_a_tool_that_never_returns_does_not_keep_its_process() -> None:
    """A pool of threads that is waited for at the end would."""
    gate, ended = threading.Event(), list[bool]()

    def stuck() -> None:
        ended.append(gate.wait(30))

    try:
        with pytest.raises(TimeoutError):
            asyncio.run(function_tool(stuck).invoke({}, 0.01, CalledBy("run", "call-1")))
        assert ended == []
    finally:
        gate.set()


def leaves() -> None:
    sys.exit(3)


def exhausted() -> int:
    return next(iter([]))


async def leaves_too() -> None:
    sys.exit(3)


async def given_up() -> None:
    other = asyncio.ensure_future(asyncio.sleep(60))
    other.cancel()
    await other


@pytest.mark.parametrize(
    ("function", "name"),
    [(leaves, "SystemExit"), (leaves_too, "SystemExit"), (exhausted, "StopIteration"), (given_up, "CancelledError")],
)
def test_whatever_a_tool_raises_is_its_own_error(function: Callable[..., Any], name: str) -> None:
    with pytest.raises(ServiceError) as caught:
        asyncio.run(function_tool(function).invoke({}, 20, CalledBy("run", "call-1")))
    assert caught.value.remote_type == name


def test_a_mark_changes_nothing_but_what_is_known() -> None:
    @tool(name="other", idempotent=True, examples=["do it"])
    def plain(x: int) -> int:
        return x

    made = function_tool(plain)
    assert plain(3) == 3
    assert (made.name, made.idempotent, made.examples) == ("other", True, ("do it",))


def test_what_cannot_be_a_tool_is_refused() -> None:
    def many(*things: int) -> None: ...
    def stream() -> Any:
        yield 1

    for function in (many, stream):
        with pytest.raises(ConfigError):
            function_tool(function)


def test_definitions_of_all_tools_lie_together() -> None:
    made = [*tools_of(pack, later).values()]
    whole = schema(made)
    assert set(whole["$defs"]) == {"pack:Box"}
    assert '"#/$defs/pack:Box"' in json.dumps(whole)
    assert '"#/$defs/Box"' not in json.dumps(whole)


def test_choices_are_read() -> None:
    made = [*tools_of(pack, later).values()]
    assert parse('{"tool": "later", "arguments": {"text": "x"}}', made) == Call("later", {"text": "x"})
    assert parse('```json\n{"tool": "answer"}\n```', made) == Ready()
    for wrong in ("later", "[]", '{"tool": 3}', '{"tool": "latr"}', ""):
        assert isinstance(parse(wrong, made), Unusable)


def test_the_parameter_for_text_is_found() -> None:
    def both(count: int, query: str | None = None) -> None: ...
    def none(count: int) -> None: ...
    def anything(what) -> None: ...  # type: ignore[no-untyped-def]

    assert [function_tool(f).text_parameter for f in (both, none, anything)] == ["query", None, "what"]


def test_ranking_takes_the_closest_text_of_each_tool() -> None:
    @tool(examples=["hi", "bye"])
    def first() -> None: ...
    @tool
    def second() -> None: ...

    made = [function_tool(first), function_tool(second)]
    assert routing.texts(made[0]) == ["first", "hi", "bye"]
    ranked = routing.rank([1.0, 0.0], made, [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert [(score.tool, score.score) for score in ranked] == [("first", 1.0), ("second", 0.7071)]
    text = json.dumps([{"tool": score.tool, "score": score.score} for score in ranked])
    assert routing.choose(text, made, 0.9) is made[0]
    assert routing.choose(text, made[1:], 0.9) is None
    assert routing.choose(text, made, 1.1) is None


class Host:
    """What an agent sees of a module."""

    name = "shop"

    def __init__(self) -> None:
        self.agents: list[str] = []
        self.work: list[Any] = []
        self.api: Any = None
        self.caller: Any = None

    def add_background(self, work: Any) -> None:
        self.work.append(work)


def test_agents_of_a_module_share_one_host() -> None:
    host = Host()
    Agent("a", tools=[pack]).attach(host)
    Agent("b", tools=["x.y", ToolUse("x.z")], limits=Limits(steps=3)).attach(host)
    assert (host.agents, len(host.work)) == (["a", "b"], 1)
    with pytest.raises(ConfigError, match="already"):
        Agent("a").attach(host)


def test_an_agent_that_can_never_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="a b"):
        Agent("a b")
    with pytest.raises(ConfigError, match="two tools"):
        Agent("a", tools=[pack, pack])
    with pytest.raises(ConfigError, match="neither a function nor"):
        Agent("a", ground="search")
    with pytest.raises(ConfigError):
        Agent("a", tools=["no-method"])


def test_a_function_to_stand_on() -> None:
    def find(question: str) -> list[str]:
        return []

    agent = Agent("a", ground=find)
    assert (agent.spec.ground, set(agent.functions)) == ("find", {"find"})

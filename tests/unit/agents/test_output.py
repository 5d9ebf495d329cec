"""Answers of a given form: from every kind of type, checked, repaired once, and typed again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.agents import output
from llmagentos.agents.agent import Agent
from llmagentos.api.agents import AgentSpec, Limits
from llmagentos.api.runs import Run, RunState, Turn
from llmagentos.core.errors import ConfigError, Conflict
from unit.agents.conftest import Book, Scripted, begun, carry_on, tools_of


class Model(pydantic.BaseModel):
    name: str
    age: int


class Struct(msgspec.Struct):
    name: str
    age: int


@dataclass
class Data:
    name: str
    age: int


class Dict(TypedDict):
    name: str
    age: int


SCHEMA = output.schema_of(Struct)
SPEC = AgentSpec(name="a", model="m", output=SCHEMA)
GOOD = '{"name": "Tom", "age": 42}'


def run_of(book: Book) -> Run:
    from llmagentos.agents.log import detail

    return detail("run1", book.log)


@pytest.mark.parametrize("kind", [Model, Struct, Data, Dict])
def test_every_kind_of_type_is_a_schema_and_typed_again(kind: Any) -> None:
    agent = Agent("people", output=kind)
    schema = agent.spec.output
    assert schema is not None
    assert (schema["type"], set(schema["properties"])) == ("object", {"name", "age"})
    book = Book(begun(agent.spec, "Tom, 42"))
    carry_on(agent.spec, Scripted([GOOD]), book)
    run = run_of(book)
    assert run.output == {"name": "Tom", "age": 42}
    found = agent.result(run)
    expected = kind(name="Tom", age=42)
    assert (type(found), found) == (type(expected), expected)


def test_nested_types_keep_their_definitions() -> None:
    class Team(msgspec.Struct):
        people: list[Struct]

    schema = output.schema_of(Team)
    assert "$defs" in schema
    assert output.read('{"people": [{"name": "a", "age": "x"}]}', schema)[1] is not None
    assert output.read('{"people": [{"name": "a", "age": 1}]}', schema)[1] is None


def test_what_has_no_schema_is_refused() -> None:
    with pytest.raises(ConfigError):
        Agent("a", output=object)


def test_an_agent_without_output_gives_its_text() -> None:
    run = Run("r", "a", 1, "m", RunState.SUCCEEDED, "hi", 0.0, "me", answer="hello")
    assert Agent("a").result(run) == "hello"
    with pytest.raises(Conflict):
        Agent("a").result(msgspec.structs.replace(run, answer=None, state=RunState.FAILED))


def test_the_engine_gets_the_schema_and_nobody_watches_the_raw_text() -> None:
    world = Scripted([GOOD])
    book = Book(begun(SPEC, "Tom, 42"))
    carry_on(SPEC, world, book)
    prompt = world.prompts[0]
    assert (prompt.schema, prompt.live, prompt.temperature) == (SCHEMA, False, 0.0)
    assert "JSON Schema" in prompt.messages[0].content
    assert book.log.answer is not None
    assert json.loads(book.log.answer.text) == book.log.answer.output


@pytest.mark.parametrize(("bad", "said"), [("Tom is 42.", "no JSON"), ('{"name": "Tom"}', "age"), ("", "no JSON")])
def test_a_wrong_answer_is_asked_for_once_more_with_the_reason(bad: str, said: str) -> None:
    world = Scripted([bad, GOOD])
    book = Book(begun(SPEC, "Tom, 42"))
    carry_on(SPEC, world, book)
    assert said in world.prompts[1].messages[-1].content
    assert book.log.answer is not None
    assert book.log.answer.output == {"name": "Tom", "age": 42}


def test_a_second_wrong_answer_fails_the_run() -> None:
    world = Scripted(["Tom", "Jerry"])
    book = Book(begun(SPEC, "Tom, 42"))
    carry_on(SPEC, world, book)
    assert len(world.prompts) == 2
    assert book.log.failure is not None
    assert book.log.failure.code == "bad_output"


def test_a_code_block_around_it_is_no_fault() -> None:
    book = Book(begun(SPEC, "Tom, 42"))
    carry_on(SPEC, Scripted([f"```json\n{GOOD}\n```"]), book)
    assert book.log.answer is not None


def test_with_tools_and_records_too() -> None:
    def age_of(name: str) -> int:
        return 42

    world = Scripted(['{"tool": "age_of", "arguments": {"name": "Tom"}}', '{"tool": "answer"}', "42", GOOD])
    book = Book(begun(SPEC, "How old is Tom?"))
    carry_on(SPEC, world, book, tools_of(age_of))
    assert [prompt.schema == SCHEMA for prompt in world.prompts] == [False, False, True, True]
    assert world.prompts[3].messages[: len(world.prompts[2].messages)] == world.prompts[2].messages
    assert book.log.answer is not None
    grounded = AgentSpec(name="g", model="m", ground="shop.search", output=SCHEMA)
    world = Scripted(['{"name": "Tom", "age": 43}', GOOD], {"shop.search": [{"name": "Tom", "age": 42}]})
    book = Book(begun(grounded, "How old is Tom?"))
    carry_on(grounded, world, book)
    assert "43" in world.prompts[1].messages[-1].content
    assert book.log.answer is not None
    assert book.log.answer.output == {"name": "Tom", "age": 42}


def test_an_answer_may_be_a_list_and_survive_a_session() -> None:
    spec = AgentSpec(
        name="a", model="m", output={"type": "array", "items": {"type": "integer"}}, limits=Limits(steps=9)
    )
    book = Book(begun(spec, "count", history=[Turn("a", "[1]")]))
    carry_on(spec, Scripted(["[1, 2, 3]"]), book)
    assert book.log.answer is not None
    assert book.log.answer.output == [1, 2, 3]


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    value, wrong = output.read(text, SCHEMA)
    assert wrong is not None or isinstance(value, dict)

"""LangChain and LangGraph unchanged under `llmctl exec`, where they are installed."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from support.server import ServerProcess
from support.talker import Talker

PROGRAM = """
from typing import TypedDict
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

model = ChatOpenAI(model="default")
chain = ChatPromptTemplate.from_template("Say {text}") | model
assert len(chain.batch([{"text": "one"}, {"text": "two"}])) == 2
assert "".join(piece.content for piece in chain.stream({"text": "three"}))

class State(TypedDict):
    text: str

def write(state: State) -> State:
    return {"text": chain.invoke(state).content}

graph = StateGraph(State)
graph.add_node("write", write)
graph.add_edge(START, "write")
graph.add_edge("write", END)
print(graph.compile().invoke({"text": "four"})["text"])
"""


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("langchain_openai", "langgraph")),
    reason="needs langchain-openai and langgraph",
)
def test_their_calls_are_one_run(house: ServerProcess, talker: Talker) -> None:
    (house.directory / "graph.py").write_text(PROGRAM)
    done = house.llmctl("exec", "--agent", "writer", "--", sys.executable, "graph.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "The kettle costs 39.90 EUR.\n"
    (run,) = json.loads(house.llmctl("ps", "-a", "--json").stdout)
    assert (run["agent"], run["state"], run["model_calls"]) == ("writer", "succeeded", 4)

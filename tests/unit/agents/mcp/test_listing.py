"""What a stranger's MCP server offers and returns is checked and bounded."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.agents.mcp.listing import DEEPEST_SCHEMA, MOST_DOC, MOST_SCHEMA, MOST_TOOLS, checked
from llmagentos.agents.mcp.results import McpToolFailed, plain
from llmagentos.agents.strangers import plain_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
OBJECT = st.dictionaries(st.text(max_size=12), JSON, max_size=5)


def tool(name: Any = "add", **more: Any) -> dict[str, Any]:
    return {"name": name, "description": "Adds.", "inputSchema": {"type": "object"}} | more


def test_a_plain_tool_is_taken_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    found = checked([tool(inputSchema=schema)])
    assert found.refused == []
    assert [(one.name, one.doc, one.parameters) for one in found.tools] == [("add", "Adds.", schema)]


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"x": schema}}
    return schema


@pytest.mark.parametrize(
    ("offered", "why"),
    [
        (tool(name=""), "its name"),
        (tool(name="a b"), "its name"),
        (tool(name="x" * 129), "its name"),
        (tool(name=None), "its name"),
        (tool(inputSchema=None), "no input schema"),
        (tool(inputSchema={"type": "string"}), "not of an object"),
        (tool(inputSchema=deep(DEEPEST_SCHEMA)), "nested deeper"),
        (tool(inputSchema={"type": "object", "description": "x" * MOST_SCHEMA}), "bytes"),
        (tool(inputSchema={"type": "object", "properties": {"a": {"$ref": "https://x/y"}}}), "another document"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_said(offered: dict[str, Any], why: str) -> None:
    found = checked([offered, tool("good")])
    assert [one.name for one in found.tools] == ["good"]
    assert why in found.refused[0]


def test_too_many_tools_and_names_that_come_twice() -> None:
    found = checked([tool(f"t{i}") for i in range(MOST_TOOLS + 3)])
    assert len(found.tools) == MOST_TOOLS
    assert found.refused == [f"3 tools after the first {MOST_TOOLS}"]
    twice = checked([tool(), tool()])
    assert len(twice.tools) == 1
    assert "another tool has its name" in twice.refused[0]


def test_text_without_what_people_do_not_see() -> None:
    assert plain_text("ad\u202ed\u200b\x1b[31m\ts\n", 100) == "add[31m\ts\n"
    assert plain_text("x" * 50, 10) == "x" * 10 + " ... (cut)"
    assert plain_text({"a": 1}, 10) == ""
    long = checked([tool(description="x" * 100_000)]).tools[0]
    assert len(long.doc) < MOST_DOC + 20


@given(st.lists(OBJECT | st.fixed_dictionaries({"name": JSON, "description": JSON, "inputSchema": JSON}), max_size=5))
def test_no_offer_does_harm(offered: list[dict[str, Any]]) -> None:
    found = checked(offered)
    assert len(found.tools) + len(found.refused) == len(offered)
    for one in found.tools:
        assert one.parameters["type"] == "object"
        assert len(msgspec.json.encode(one.parameters)) <= MOST_SCHEMA + 20


def test_results_as_plain_values() -> None:
    text = {"type": "text", "text": "hello"}
    assert plain({"content": [text]}, "t") == "hello"
    assert plain({"content": [text, text]}, "t") == "hello\nhello"
    assert plain({"content": [text], "structuredContent": {"a": 1}}, "t") == {"a": 1}
    image = {"type": "image", "mimeType": "image/png", "data": "AAAA"}
    assert plain({"content": [image]}, "t") == {"type": "image/png", "base64_characters": 4}
    resource = {"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}}
    assert plain({"content": [text, resource]}, "t") == ["hello", {"uri": "file:///a", "text": "inside"}]
    assert plain({"content": []}, "t") == ""
    with pytest.raises(McpToolFailed, match="no such file"):
        plain({"content": [{"type": "text", "text": "no such file"}], "isError": True}, "t")
    with pytest.raises(McpToolFailed, match="no reason was given"):
        plain({"content": [{"type": "text", "text": "\b"}], "isError": True}, "t")


@given(OBJECT | st.fixed_dictionaries({"content": JSON, "structuredContent": JSON, "isError": JSON}))
def test_no_result_does_harm(result: dict[str, Any]) -> None:
    try:
        msgspec.json.encode(plain(result, "t"))
    except McpToolFailed as error:
        assert error.message

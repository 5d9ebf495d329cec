"""Agents in YAML: what is read, and how each fault is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.agents.definition import parse_agent, read_agent
from llmagentos.api.agents import Limits, ToolUse
from llmagentos.core.config.document import InvalidDocument
from llmagentos.core.errors import ConfigError

ROOT = Path(__file__).parents[3]


def test_everything_that_an_agent_can_have() -> None:
    spec = parse_agent(
        """
kind: Agent
name: support
model: big
instructions: Help.
tools:
  - service: shop.find
  - {service: shop.order, examples: [order two]}
ground: shop.search
route: embedding
threshold: 0.9
verify: false
limits: {steps: 4, tokens: 400, timeout: 60, reply: 100}
""",
        "a.yaml",
    )
    assert spec.tools == [ToolUse("shop.find"), ToolUse("shop.order", ["order two"])]
    assert spec.limits == Limits(steps=4, tokens=400, timeout=60.0, reply=100)
    assert (spec.ground, spec.route, spec.threshold, spec.verify) == ("shop.search", "embedding", 0.9, False)


def test_the_example_is_right() -> None:
    assert read_agent(ROOT / "examples/catalogue/support.yaml").ground == "catalogue.search"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: Agent\nname: a\nmodle: m\n", "a.yaml:3: unknown key 'modle'; did you mean 'model'?"),
        ("kind: Agnet\nname: a\n", "a.yaml:1: kind: expected Agent, not 'Agnet'; did you mean 'Agent'?"),
        ("kind: [Agent]\nname: a\n", "a.yaml:1: kind: expected Agent, not"),
        ("name: a\n", "a.yaml:1: needs 'kind': Agent"),
        ("kind: Agent\n", "a.yaml:1: the document needs 'name'"),
        ("- kind: Agent\n", "a.yaml:1: expected a mapping"),
        ("", "a.yaml:1: expected a mapping"),
        ("kind: Agent\nname: a b\n", "a.yaml:2: name: expected a name like"),
        ("kind: Agent\nname: a\nground: shop\n", "a.yaml:3: ground: expected service.method, not 'shop'"),
        ("kind: Agent\nname: a\nlimits: {steps: 0}\n", "a.yaml:3: limits.steps: expected a whole number at least 1"),
        ("kind: Agent\nname: a\nroute: modle\n", "a.yaml:3: route: expected one of"),
        ("kind: Agent\nname: a\ntools:\n  - service: x\n", "a.yaml:4: tools[0].service: expected a name like"),
        (
            "kind: Agent\nname: a\ntools:\n  - service: x.y\n  - service: x.y\n",
            "a.yaml:5: the tool 'x.y' stands here twice",
        ),
        ("kind: Agent\nname: a\nkind: Agent\n", "a.yaml:3: kind stands here twice"),
        ("kind: {\n", "not YAML"),
        ("kind: Agent\nname: a\nlimits:\n  timeout: .nan\n", "a.yaml:4: limits.timeout"),
    ],
)
def test_faults_say_where_and_what(text: str, told: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse_agent(text, "a.yaml")
    assert told in caught.value.message


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse_agent("kind: Agent\nname: a\nmodle: m\nlimits: {steps: x}\n", "a.yaml")
    assert [fault.line for fault in caught.value.faults] == [3, 4]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_agent(tmp_path / "none.yaml")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for whole in (text, f"kind: Agent\nname: a\n{text}"):
        try:
            parse_agent(whole, "a.yaml")
        except ConfigError as error:
            assert error.message

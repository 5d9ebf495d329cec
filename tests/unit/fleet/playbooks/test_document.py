"""YAML as nodes: the fast parser and PyYAML's own find the same, and neither is brought down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from yaml.nodes import Node, ScalarNode

from llmagentos.fleet.playbooks import document

ROOT = Path(__file__).parents[4]
FILES = [*ROOT.glob("examples/**/*.yml"), *ROOT.glob("benchmarks/**/*.yml")]
needs_libyaml = pytest.mark.skipif(document._LIBYAML is None, reason="PyYAML was built without libyaml")
PIECES = st.lists(
    st.sampled_from(
        [
            *"ab:-?#&*!|>'\"%@`{}[],. \n\t",
            "\n  ",
            "- ",
            ": ",
            "a: ",
            "&x ",
            "*x",
            "<<: ",
            "!vault ",
            "|\n",
            "é",
            "---\n",
        ]
    ),
    max_size=40,
).map("".join)

VALUES = st.recursive(
    st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=8
)


def flat(node: Node | None, seen: frozenset[int] = frozenset()) -> Iterator[tuple[object, ...]]:
    """Every node with its line, depth first; what contains itself once."""
    if node is None or id(node) in seen:
        yield ("again",)
    elif isinstance(node, ScalarNode):
        yield (node.tag, node.value, node.start_mark.line)
    else:
        yield (node.tag, type(node), node.start_mark.line, len(node.value))
        for each in node.value:
            for part in each if isinstance(each, tuple) else (each,):
                yield from flat(part, seen | {id(node)})


def told(text: str) -> tuple[Any, ...]:
    """The nodes, or what is wrong."""
    try:
        return tuple(flat(document.compose("a.yml", text)))
    except document.PlaybookError as error:
        return (error.message,)


def by_its_own(text: str) -> tuple[Any, ...]:
    """`told`, without libyaml."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "_LIBYAML", None)
        return told(text)


@needs_libyaml
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_both_find_the_same_in_our_playbooks(path: Path) -> None:
    assert told(path.read_text()) == by_its_own(path.read_text())


@needs_libyaml
@given(VALUES, st.booleans())
def test_both_find_what_was_written(value: object, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow)
    assert told(text) == by_its_own(text)
    root = document.compose("a.yml", text)
    assert root is not None
    assert yaml.SafeLoader("").construct_document(root) == value


@given(PIECES)
def test_whatever_comes_is_read_or_refused_with_its_line(text: str) -> None:
    (first, *_) = told(text)
    assert isinstance(first, tuple) or first.startswith("a.yml:")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_a_deep_document_is_refused(opening: str) -> None:
    with pytest.raises(document.PlaybookError, match="nested"):
        document.compose("a.yml", opening * 5_000)

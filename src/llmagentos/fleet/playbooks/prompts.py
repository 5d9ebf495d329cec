"""`vars_prompt`: what a play asks for before it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from yaml.nodes import MappingNode, Node, SequenceNode

from llmagentos.core.errors import nearest
from llmagentos.fleet.playbooks.document import FALSE, fail, get, is_null, items, kind, line_of, scalar

_KEYS = frozenset({"name", "prompt", "default", "private", "confirm", "encrypt", "salt", "salt_size", "unsafe"})


@dataclass(frozen=True, slots=True)
class Prompt:
    """One variable that is asked for."""

    file: str
    line: int
    name: str
    text: str
    default: str | None
    private: bool
    confirm: bool
    encrypt: str | None
    """The hash that it is told as."""
    salted: bool
    """The playbook says its salt."""


def prompts(file: str, node: Node | None) -> Iterator[Prompt]:
    """Those of a play. Raises `PlaybookError` for what is none."""
    if node is None or is_null(node):
        return
    if not isinstance(node, SequenceNode):
        fail(file, line_of(node), f"vars_prompt has to be a list, found {kind(node)}", hint="- name: VARIABLE")
    for each in node.value:
        if not isinstance(each, MappingNode):
            fail(file, line_of(each), f"expected a variable to ask for, found {kind(each)}", hint="- name: VARIABLE")
        for key, key_node, _ in items(each):
            if key not in _KEYS:
                close = nearest(key, _KEYS)
                message = f"vars_prompt has no key {key[:80]!r}" + (f": the nearest is {close!r}" if close else "")
                fail(file, line_of(key_node), message)
        name = scalar(get(each, "name"))
        if not name:
            fail(file, line_of(each), "vars_prompt needs the name of a variable", hint="- name: VARIABLE")
        yield Prompt(
            file,
            line_of(each),
            name,
            scalar(get(each, "prompt")) or name,
            scalar(get(each, "default")),
            (scalar(get(each, "private")) or "yes").lower() not in FALSE,
            (scalar(get(each, "confirm")) or "no").lower() not in FALSE,
            scalar(get(each, "encrypt")),
            scalar(get(each, "salt")) is not None,
        )

"""Agents in YAML: read strictly, every fault as file:line."""

from __future__ import annotations

from pathlib import Path

import yaml
from msgspec import inspect

from llmagentos.api.agents import AgentSpec
from llmagentos.core.config.document import Checker, Fault, InvalidDocument, compose, decode, read_text
from llmagentos.core.errors import nearest

KINDS = ("Agent",)


def read_agent(path: str | Path) -> AgentSpec:
    """The agent in the file. Raises `InvalidDocument` with every fault, `ConfigError` for an unreadable file."""
    return parse_agent(read_text(Path(path)), str(path))


def parse_agent(text: str, source: str) -> AgentSpec:
    """The agent in `text`; `source` is what faults call the file. Raises `InvalidDocument`."""
    node = compose(text, source)
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1 if node is not None else 1
        expected = "expected a mapping that begins with `kind: Agent` or `kind: JobTemplate`"
        raise InvalidDocument.of(source, [Fault(line, expected)])
    faults = list(_kind_faults(node))
    if faults:
        raise InvalidDocument.of(source, faults)
    checker = Checker(Path(source).parent)
    kind = inspect.type_info(AgentSpec)
    plain = checker.check(node, kind)
    faults = [*checker.faults, *_duplicates(node)]
    if "ground" in (plain or {}) and not faults and "." not in str(plain["ground"]):
        faults = [Fault(checker.lines[("ground",)], f"ground: expected service.method, not {plain['ground']!r}")]
    if faults:
        raise InvalidDocument.of(source, faults)
    try:
        spec: AgentSpec = decode(plain, AgentSpec)
    except ValueError as error:
        raise InvalidDocument.of(source, [_fault(str(error), checker, node)]) from None
    return spec


def _fault(message: str, checker: Checker, node: yaml.Node) -> Fault:
    """What msgspec says, on the line of the tool that it says it of."""
    told, _, place = message.partition(" - at `$.tools[")
    index = place.partition("]")[0]
    line = checker.lines.get(("tools", int(index))) if index.isdecimal() else None
    return Fault(line, f"tools: {told}") if line else Fault(node.start_mark.line + 1, message)


def _kind_faults(node: yaml.MappingNode) -> list[Fault]:
    given = next((value for key, value in node.value if key.value == "kind"), None)
    if given is None:
        return [Fault(node.start_mark.line + 1, "needs 'kind': Agent")]
    if not isinstance(given, yaml.ScalarNode) or given.value not in KINDS:
        shown = given.value if isinstance(given, yaml.ScalarNode) else "something else"
        close = nearest(str(shown), KINDS)
        more = f"; did you mean {close!r}?" if close else ""
        return [Fault(given.start_mark.line + 1, f"kind: expected Agent, not {shown!r}{more}")]
    return []


def _duplicates(node: yaml.MappingNode) -> list[Fault]:
    """The same method twice among the tools."""
    tools = next((value for key, value in node.value if key.value == "tools"), None)
    seen: dict[str, int] = {}
    faults = []
    for item in tools.value if isinstance(tools, yaml.SequenceNode) else []:
        for key, value in item.value if isinstance(item, yaml.MappingNode) else []:
            if key.value == "service" and isinstance(value, yaml.ScalarNode):
                line = value.start_mark.line + 1
                if value.value in seen:
                    faults.append(
                        Fault(line, f"the tool {value.value!r} stands here twice (first on line {seen[value.value]})")
                    )
                seen.setdefault(value.value, line)
    return faults

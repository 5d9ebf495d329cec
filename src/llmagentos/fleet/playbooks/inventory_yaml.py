"""Inventories in Ansible's YAML format: groups with `hosts`, `children` and `vars`."""

from __future__ import annotations

from typing import Any

from yaml.nodes import MappingNode, Node

from llmagentos.api.jobs import InventorySource
from llmagentos.fleet.playbooks.document import compose, is_null, items, kind, line_of, scalar, value
from llmagentos.fleet.playbooks.inventory import Builder, fault


def read_yaml(source: InventorySource, builder: Builder) -> None:
    """Ansible's YAML format: groups with `hosts`, `children` and `vars`."""
    root = compose(source.name, source.text)
    if root is None or is_null(root):
        return
    if not isinstance(root, MappingNode):
        fault(source.name, line_of(root), f"expected groups, found {kind(root)}", hint="begin with `all:`")
    for name, key, node in items(root):
        _group(source.name, builder, name, node, line_of(key))


def _group(file: str, builder: Builder, name: str, node: Node, line: int) -> None:
    group = builder.group(name, file, line)
    if is_null(node):
        return
    if not isinstance(node, MappingNode):
        fault(file, line_of(node), f"expected hosts, children or vars in the group {name!r}, found {kind(node)}")
    for key, key_node, content in items(node):
        line = line_of(key_node)
        if key not in ("hosts", "children", "vars"):
            fault(file, line, f"the group {name!r} cannot hold {key!r}", hint="expected hosts, children or vars")
        if is_null(content):
            continue
        if key == "hosts" and (one := scalar(content)) is not None:
            builder.host(one, group, {}, file, line)
            continue
        if not isinstance(content, MappingNode):
            fault(file, line_of(content), f"{key!r} has to be a mapping, found {kind(content)}")
        if key == "vars":
            builder.variables[group].update(value(file, content))
        for child, child_node, inner in items(content) if key != "vars" else ():
            if key == "hosts":
                builder.host(child, group, _variables(file, inner), file, line_of(child_node))
            else:
                _group(file, builder, child, inner, line_of(child_node))
                builder.child(group, child, file, line_of(child_node))


def _variables(file: str, node: Node) -> dict[str, Any]:
    if is_null(node):
        return {}
    if not isinstance(node, MappingNode):
        fault(file, line_of(node), f"a host's variables have to be a mapping, found {kind(node)}")
    found: dict[str, Any] = value(file, node)
    return found

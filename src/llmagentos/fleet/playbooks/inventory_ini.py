"""Inventories in Ansible's INI format: `[group]`, `[group:children]`, `[group:vars]`, hosts with `key=value`."""

from __future__ import annotations

import ast
import re
import shlex
from typing import Any

from llmagentos.api.jobs import InventorySource
from llmagentos.fleet.playbooks.inventory import Builder, fault

_SECTION = re.compile(r"\[(?P<name>[^:\]\s]+)(?::(?P<kind>\w+))?\]\s*(?:[#;].*)?")
_KINDS = ("hosts", "children", "vars")


def read_ini(source: InventorySource, builder: Builder) -> None:
    """Read one source into `builder`. Raises `InventoryError` with file:line."""
    group, kind = "ungrouped", "hosts"
    wanted: dict[str, int] = {}
    known = {"all", "ungrouped"}
    for line, raw in enumerate(source.text.splitlines(), 1):
        text = raw.strip()
        if not text or text[0] in "#;":
            continue
        if text[0] == "[" and (section := _SECTION.fullmatch(text)):
            group, kind = section["name"], section["kind"] or "hosts"
            if kind not in _KINDS:
                fault(source.name, line, f"a section cannot be of kind {kind!r}", hint="children or vars")
            builder.group(group, source.name, line)
            if kind == "vars":
                wanted.setdefault(group, line)
            else:
                known.add(group)
        elif text[0] == "[" and text.endswith("]"):
            fault(source.name, line, f"{text[:80]!r} is no section", hint="like [web], [web:children] or [web:vars]")
        elif kind == "hosts":
            _host(source.name, line, text, group, builder)
        elif kind == "vars":
            name, given = _pair(source.name, line, text)
            builder.variables[group][name] = _value(given)
        else:
            child = _bare(source.name, line, text)
            wanted.setdefault(child, line)
            builder.group(child, source.name, line)
            builder.child(group, child, source.name, line)
    known |= {name for name in builder.members if builder.members[name] or builder.children[name]}
    for name, line in wanted.items():
        if name not in known:
            fault(source.name, line, f"the group {name!r} is not defined", hint=f"add a section [{name}]")


def _host(file: str, line: int, text: str, group: str, builder: Builder) -> None:
    words = _words(file, line, text)
    if not words:
        return
    variables: dict[str, Any] = {}
    for word in words[1:]:
        name, equals, given = word.partition("=")
        if not equals or not name:
            fault(file, line, f"expected key=value after the host, not {word[:80]!r}", hint="one host a line")
        variables[name] = _value(given)
    name, port = _port(words[0])
    builder.host(name, group, variables | port, file, line)


def _port(word: str) -> tuple[str, dict[str, Any]]:
    """`host:22` and `[v6]:22`, which Ansible takes; a range's colon is not one."""
    found = re.fullmatch(r"(?P<name>[^:]*(?:\[[^\]]*\][^:]*)*):(?P<port>\d{1,5})", word)
    return (found["name"], {"ansible_port": int(found["port"])}) if found else (word, {})


def _words(file: str, line: int, text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError as error:
        fault(file, line, f"{text[:80]!r}: {str(error).lower()}")


def _pair(file: str, line: int, text: str) -> tuple[str, str]:
    name, equals, given = text.partition("=")
    if not equals or not name.strip():
        fault(file, line, f"expected key=value, not {text[:80]!r}")
    return name.strip(), given.strip()


def _bare(file: str, line: int, text: str) -> str:
    words = _words(file, line, text)
    if len(words) != 1:
        fault(file, line, f"expected the name of one group, not {text[:80]!r}")
    return words[0]


def _value(text: str) -> Any:
    """As Ansible reads it: a Python literal when it is one, else text."""
    if len(text) > 10_000 or not re.match(r"[\[({\"'\d+.-]|True$|False$|None$", text):
        return text
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return found if _plain(found, 20) else text


def _plain(found: Any, depth: int) -> bool:
    """Whether JSON can carry it."""
    if isinstance(found, list | tuple):
        return depth > 0 and all(_plain(each, depth - 1) for each in found)
    if isinstance(found, dict):
        return depth > 0 and all(isinstance(k, str) and _plain(v, depth - 1) for k, v in found.items())
    return found is None or isinstance(found, bool | str) or (isinstance(found, int | float) and abs(found) < 2**63)

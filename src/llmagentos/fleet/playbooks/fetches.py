"""Finds the tasks that fetch files: where theirs may go, and whether others of the playbook's tasks read them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from yaml.nodes import MappingNode, Node, SequenceNode

from llmagentos.fleet.playbooks.destinations import PLAYBOOK_DIR, Destination
from llmagentos.fleet.playbooks.document import FALSE, TRUE, PlaybookError, compose, decode, get, items, scalar

_NAMES = frozenset({"fetch", "ansible.builtin.fetch", "ansible.legacy.fetch"})
_PAIR = re.compile(r"""(\w+)=("[^"]*"|'[^']*'|(?:\{\{.*?\}\}|\S)+)""", re.S)
_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{2,}")
_PLAYS = re.compile(rb"^[ \t]*(?:-[ \t]+)?hosts\s*:", re.M)
_YAML = (".yml", ".yaml", ".json")
MAX_VALUES = 20
"""Of one variable, and directories of imported playbooks, that are tried."""


def destinations(files: Mapping[str, bytes], variables: Mapping[str, Any]) -> list[Destination]:
    """Those of all tasks in `files`, each as often as variables in `files` have a value for it.

    `variables` count before those. A file that is not YAML has none.
    """
    found: list[Destination] = []
    for path, content in files.items():
        if path.lower().endswith(_YAML) and b"fetch" in content and (root := _root(path, content)) is not None:
            delegates = b"delegate_to" in content or b"local_action" in content
            found += [_destination(task, variables, delegates) for task in _tasks(root)]
    found += _imported(found, files)
    begin = {match[1] for each in found if (match := _VARIABLE.match(each.dest))}
    return [*found, *_with_values(found, _values(files, begin))] if begin else found


def _imported(found: Sequence[Destination], files: Mapping[str, bytes]) -> list[Destination]:
    """For a playbook that is imported, `dest` is relative to its own directory."""
    if not any(b"import_playbook" in content for content in files.values()):
        return []
    directories = {posixpath.dirname(path) for path, content in files.items() if _PLAYS.search(content)} - {""}
    relative = [each for each in found if not each.dest.startswith("/")]
    return [
        replace(each, dest=f"{directory}/{PLAYBOOK_DIR.sub('', each.dest)}")
        for directory in sorted(directories)[:MAX_VALUES]
        for each in relative
    ]


def _with_values(found: Sequence[Destination], values: Mapping[str, set[str]]) -> Iterator[Destination]:
    for each in found:
        if match := _VARIABLE.match(each.dest):
            for value in sorted(values.get(match[1], ())):
                yield replace(each, dest=value + each.dest[match.end() :])


def _values(files: Mapping[str, bytes], names: set[str]) -> dict[str, set[str]]:
    """What the playbook's own files say that variables are, as far as that is text."""
    found: dict[str, set[str]] = {}
    for path, content in files.items():
        if path.lower().endswith(_YAML) and any(name.encode() in content for name in names):
            for node in _mappings(_root(path, content)):
                for name in names:
                    if (value := scalar(get(node, name))) and len(found.setdefault(name, set())) < MAX_VALUES:
                        found[name].add(value)
    return found


def _root(path: str, content: bytes) -> Node | None:
    try:
        return compose(path, decode(path, content))
    except PlaybookError:
        return None


def read_again(files: Mapping[str, bytes], variables: Mapping[str, Any]) -> bool:
    """Whether a word of some fetch's `dest` stands anywhere else: a task may read what another host's fetched."""
    words: dict[str, int] = {}
    for found in destinations(files, variables):
        for word in set(_WORD.findall(found.dest)):
            words[word] = words.get(word, 0) + 1
    text = b"\n".join(content for path, content in files.items() if content)
    ours = {"inventory_hostname", "playbook_dir", "ansible_host", "tmp", "home", "var", "root", "opt"}
    return any(
        len(re.findall(rb"\b" + re.escape(word.encode()) + rb"\b", text)) > count
        for word, count in words.items()
        if word not in ours
    )


def _tasks(root: Node) -> Iterator[Node]:
    for node in _mappings(root):
        for key, _, value in items(node):
            text = scalar(value) or ""
            if key in _NAMES or (key in ("action", "local_action") and text.partition(" ")[0] in _NAMES):
                yield value


def _mappings(root: Node | None) -> Iterator[MappingNode]:
    waiting = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, SequenceNode):
            waiting += node.value
        elif isinstance(node, MappingNode):
            yield node
            waiting += [value for _, _, value in items(node)]


def _destination(task: Node, variables: Mapping[str, Any], delegates: bool) -> Destination:
    if isinstance(task, MappingNode):
        given = {name: scalar(get(task, name)) or "" for name in ("dest", "src", "flat")}
    else:
        given = {name: value.strip("\"'") for name, value in _PAIR.findall(scalar(task) or "")}
    flat = given.get("flat", "").lower()
    return Destination(
        _filled(given.get("dest", ""), variables),
        _filled(given.get("src", ""), variables),
        True if flat in TRUE else False if flat in FALSE or not flat else None,
        delegates,
    )


def _filled(text: str, variables: Mapping[str, Any]) -> str:
    return _VARIABLE.sub(lambda m: str(variables[m[1]]) if isinstance(variables.get(m[1]), str | int) else m[0], text)

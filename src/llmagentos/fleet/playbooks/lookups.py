"""Files that a task takes from beside the playbook, and whether they are there."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Callable, Collection, Iterator

from yaml.nodes import MappingNode, Node, SequenceNode

from llmagentos.fleet.playbooks.arguments import MAX_TEXT, OPTION, short_name
from llmagentos.fleet.playbooks.document import FALSE, TRUE, get, is_null, line_of, scalar

# Module: its option, the directory in which it looks first.
SOURCES = {
    "template": ("src", "templates"),
    "copy": ("src", "files"),
    "unarchive": ("src", "files"),
    "assemble": ("src", "files"),
    "uri": ("src", "files"),
    "script": ("cmd", "files"),
    "include_vars": ("file", "vars"),
}
_FIRST_WORD = ("script", "include_vars")
_ELSEWHERE = ("{{", "{%", "://")


def missing(
    module: str, content: Node, task: MappingNode, *, file: str, base: str, role: str | None, files: Collection[str]
) -> tuple[int, str] | None:
    """Line and name of the file that the task needs and that is not among `files`; None when all is well.

    A path that begins at the root is the node's own, and what is a template only the node knows.
    """
    short = short_name(module)
    if short not in SOURCES:
        return None
    option, directory = SOURCES[short]
    args = get(task, "args")
    given = _option(content, args, option, free=short in _FIRST_WORD)
    if given is None or on_the_node(short, lambda name: (_option(content, args, name, free=False) or (0, None))[1]):
        return None
    line, text = given
    wanted = _program(text) if short in _FIRST_WORD else text.strip().strip("'\"")
    if not wanted or wanted.startswith(("/", "~")) or any(mark in wanted for mark in _ELSEWHERE):
        return None
    for root in _roots(directory, file=file, base=base, role=role):
        path = posixpath.normpath(posixpath.join(root, wanted))
        if path in files or any(each.startswith(f"{path}/") for each in files):
            return None
    return line, wanted


def missing_vars_files(node: Node | None, base: str, files: Collection[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each of a play's `vars_files` that is not there; of a list of them one is enough."""
    if node is None or is_null(node):
        return
    for entry in node.value if isinstance(node, SequenceNode) else [node]:
        names = [scalar(each) or "" for each in (entry.value if isinstance(entry, SequenceNode) else [entry])]
        if any(not name or name.startswith(("/", "~")) or "{{" in name for name in names):
            continue
        paths = [posixpath.normpath(posixpath.join(base, place, name)) for name in names for place in ("", "vars")]
        if names and not any(path in files for path in paths):
            yield line_of(entry), names[0]


def _program(text: str) -> str:
    try:
        return shlex.split(text)[0]
    except (ValueError, IndexError):
        return ""


def _roots(directory: str, *, file: str, base: str, role: str | None) -> Iterator[str]:
    here = posixpath.dirname(file)
    for place in dict.fromkeys([*([role] if role is not None else []), here, posixpath.dirname(here), base]):
        yield posixpath.join(place, directory)
        yield place


def _option(content: Node, args: Node | None, name: str, *, free: bool) -> tuple[int, str] | None:
    for node in (content, args):
        if isinstance(node, MappingNode) and (value := get(node, name)) is not None and (text := scalar(value)):
            return line_of(value), text
    text = scalar(content)
    if text is None:
        return None
    words = {found["name"]: found["value"] for found in OPTION.finditer(text[:MAX_TEXT])}
    if name in words:
        return line_of(content), words[name]
    first = text.split()[:1]
    return (line_of(content), text) if free and first and "=" not in first[0] else None


def on_the_node(module: str, option: Callable[[str], str | None]) -> bool:
    """Whether the module's file is on the node, or might be; `option` finds what is written for an option."""
    remote, copied = option("remote_src"), option("copy") if module == "unarchive" else None
    if remote is None:
        return module == "assemble" or (copied is not None and copied.strip("'\" ").lower() not in TRUE)
    return remote.strip("'\" ").lower() not in FALSE

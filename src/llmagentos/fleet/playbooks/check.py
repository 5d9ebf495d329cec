"""Reads a playbook as far as it can be judged before it runs: plays, tasks, handlers, roles, what is included.

Whatever depends on variables, facts or installed collections is left to the node.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from yaml.nodes import MappingNode, Node, SequenceNode

from llmagentos.core.errors import nearest
from llmagentos.fleet.playbooks import arguments
from llmagentos.fleet.playbooks.document import (
    compose,
    decode,
    fail,
    get,
    is_null,
    items,
    kind,
    line_of,
    scalar,
    texts,
)
from llmagentos.fleet.playbooks.findings import Finding, Findings
from llmagentos.fleet.playbooks.lookups import missing, missing_vars_files
from llmagentos.fleet.playbooks.prompts import Prompt, prompts
from llmagentos.fleet.playbooks.vocabulary import Vocabulary, own_modules

MAX_IMPORTS = 20
_LINES = {0x85: " ", 0x2028: " ", 0x2029: " "}
"""Line ends for YAML, but not for editors: lines are told as people see them."""
_ENCRYPTED = b"$ANSIBLE_VAULT;"
_MAKES_FILES = re.compile(rb"\b(?:playbook_dir|role_path|fetch)\b")  # where what is copied later may come to be
MAX_SHOWN = 80
"""Characters of a wrong word that a message repeats."""
MAX_YAML_BYTES = 8 * 1024 * 1024
_IMPORT = ("import_playbook", "ansible.builtin.import_playbook", "ansible.legacy.import_playbook")
_SECTIONS = ("pre_tasks", "tasks", "post_tasks", "handlers")
_BLOCK = ("block", "rescue", "always")
_VARIABLE = re.compile(
    r"\{\{\s*(?P<name>\w+)\s*(?:\|\s*default\(\s*(?P<quote>['\"])(?P<default>[^'\"]*)(?P=quote)[^)]*\)\s*)?\}\}"
)
_TASK_FILES = frozenset({"include_tasks", "import_tasks"})
_ROLE_NAME = re.compile(r"\b(?:name|role)=(\S+)")
_ROLE_TASKS = frozenset({"include_role", "import_role"})


@dataclass(frozen=True, slots=True)
class Play:
    """A play: where it stands and its host patterns; None when only the node can know them."""

    file: str
    line: int
    name: str
    hosts: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where tasks stand: their file, the playbook's directory, their role's, whether collections are searched."""

    file: str
    base: str
    role: str | None = None
    collections: bool = False
    guarded: bool = False
    """What fails here is expected, or may never be reached."""


class Reader:
    """Reads playbooks out of `files`; every fault is a `PlaybookError` with file:line, or goes to `findings`."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        words: Vocabulary,
        extra_vars: Mapping[str, Any],
        findings: Findings | None = None,
    ) -> None:
        self._files = files
        self._words = words
        self._own = own_modules(files)
        self._extra_vars = extra_vars
        self._seen: set[tuple[str, str]] = set()
        self._findings = findings or Findings()
        self._defaults = any(b"module_defaults" in content for content in files.values())
        self._makes_files = any(_MAKES_FILES.search(content) for content in files.values())
        self._left = MAX_YAML_BYTES
        self.read: set[str] = set()
        """Files that were read."""
        self.absent: list[tuple[str, int, str]] = []
        """File, line and name of each role that is not in the bundle."""
        self.fetches: list[tuple[str, int]] = []
        """File and line of each task that fetches a file from its host."""
        self.prompts: list[Prompt] = []
        """What its plays ask for, in order."""

    def playbook(self, path: str, *, depth: int = 0) -> list[Play]:
        """All plays of a playbook and of those it imports."""
        root = self._load(path)
        if self._files[path].startswith(_ENCRYPTED):
            fail(path, 1, "the playbook itself is encrypted: its hosts cannot be known", hint="encrypt its variables")
        if root is None or is_null(root) or (isinstance(root, SequenceNode) and not root.value):
            fail(path, 1, "the playbook is empty", hint="begin with `- hosts: all`")
        if not isinstance(root, SequenceNode):
            fail(path, line_of(root), f"expected a list of plays, found {kind(root)}", hint="begin with `- hosts: all`")
        plays: list[Play] = []
        for node in root.value:
            with self._findings.going_on():
                plays += self._entry(path, node, depth)
        return plays

    def _entry(self, path: str, node: Node, depth: int) -> list[Play]:
        if not isinstance(node, MappingNode):
            fail(path, line_of(node), f"expected a play, found {kind(node)}", hint="a play begins with `- hosts:`")
        imported = next((found for name in _IMPORT if (found := get(node, name)) is not None), None)
        return [self._play(path, node)] if imported is None else self._import(path, imported, depth)

    def _load(self, path: str) -> Node | None:
        content = self._files[path]
        self.read.add(path)
        self._left -= len(content)
        if self._left < 0:
            fail(path, 1, f"over {MAX_YAML_BYTES} bytes of YAML in one playbook are too many")
        if content.startswith(_ENCRYPTED):
            return None
        return compose(path, decode(path, content).translate(_LINES))

    def _import(self, path: str, node: Node, depth: int) -> list[Play]:
        name = scalar(node)
        if name is None:
            fail(path, line_of(node), f"import_playbook takes a file, not {kind(node)}")
        if "{{" in name or (name.count(".") >= 2 and "/" not in name):
            return []
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        if target not in self._files:
            fail(path, line_of(node), f"there is no playbook {name!r}", hint=self._outside())
        if depth >= MAX_IMPORTS:
            fail(path, line_of(node), f"playbooks import each other more than {MAX_IMPORTS} deep")
        return self.playbook(target, depth=depth + 1)

    def _outside(self) -> str:
        return "only the playbook's own directory goes to the nodes"

    def _play(self, path: str, node: MappingNode) -> Play:
        known = self._words.keywords["play"] | {"user"}
        for key, key_node, _ in items(node):
            if key not in known and not key.startswith("with_"):
                fail(path, line_of(key_node), _unknown("a play has no keyword", key, known))
        hosts = get(node, "hosts")
        if hosts is None:
            fail(path, line_of(node), "a play needs hosts", hint="hosts: all")
        patterns = texts(hosts)
        if not patterns or not any(pattern.strip() for pattern in patterns):
            fail(path, line_of(hosts), f"hosts has to name hosts or groups, found {kind(hosts)}", hint="hosts: all")
        place = _Place(path, posixpath.dirname(path), collections=not is_null(get(node, "collections")))
        with self._findings.going_on():
            self.prompts += prompts(path, get(node, "vars_prompt"))
        for line, name in missing_vars_files(get(node, "vars_files"), place.base, self._files):
            self._add(place, line, "file", f"there is no file of variables {name!r}")
        for section in _SECTIONS:
            with self._findings.going_on():
                self._tasks(place, get(node, section), handlers=section == "handlers", called=section)
        with self._findings.going_on():
            self._roles(place, get(node, "roles"))
        return Play(path, line_of(hosts), scalar(get(node, "name")) or ",".join(patterns), self._resolve(patterns))

    def _resolve(self, patterns: list[str]) -> tuple[str, ...] | None:
        """The patterns with extra variables filled in; None when something else decides."""
        found = []
        for pattern in patterns:
            filled = _VARIABLE.sub(self._fill, pattern)
            if "{{" in filled or "{%" in filled:
                return None
            found.append(filled)
        return tuple(found)

    def _fill(self, match: re.Match[str]) -> str:
        given = self._extra_vars.get(match["name"], match["default"])
        if isinstance(given, list):
            return ",".join(map(str, given))
        return match[0] if given is None else str(given)

    # --- tasks --------------------------------------------------------------------------------

    def _tasks(self, place: _Place, node: Node | None, *, handlers: bool = False, called: str = "tasks") -> None:
        if node is None or is_null(node):
            return
        if not isinstance(node, SequenceNode):
            fail(place.file, line_of(node), f"{called} has to be a list of tasks, found {kind(node)}")
        for task in node.value:
            with self._findings.going_on():
                self._one(place, task, handlers)

    def _one(self, place: _Place, task: Node, handlers: bool) -> None:
        if not isinstance(task, MappingNode):
            fail(place.file, line_of(task), f"expected a task, found {kind(task)}", hint="- name: ...")
        if any(get(task, key) is not None for key in _BLOCK):
            self._block(place, task, handlers)
        else:
            self._task(place, task, handlers)

    def _block(self, place: _Place, node: MappingNode, handlers: bool) -> None:
        known = self._words.keywords["block"] | ({"listen"} if handlers else set())
        for key, key_node, _ in items(node):
            if key not in known:
                fail(place.file, line_of(key_node), _unknown("a block has no keyword", key, known))
        if get(node, "block") is None:
            fail(place.file, line_of(node), "rescue and always need a block")
        rescued = replace(place, guarded=place.guarded or get(node, "rescue") is not None or _guarded(node))
        for key in _BLOCK:
            self._tasks(rescued if key == "block" else place, get(node, key), handlers=handlers, called=key)

    def _task(self, place: _Place, node: MappingNode, handler: bool) -> None:
        keywords = self._words.keywords["handler" if handler else "task"]
        named = [
            (key, key_node, content)
            for key, key_node, content in items(node)
            if key not in keywords and key != "local_action" and not key.startswith("with_")
        ]
        action = get(node, "action") or get(node, "local_action")
        if action is not None:
            self._action(place, node, action, [key for key, _, _ in named])
            return
        if not named:
            fail(place.file, line_of(node), "this task names no task module", hint="e.g. `command: uptime`")
        if len(named) > 1:
            self._too_many(place, [(key, key_node) for key, key_node, _ in named], keywords)
        name, key_node, content = named[0]
        if not self._is_module(place, name):
            fail(place.file, line_of(key_node), self._unknown_module(name, keywords), hint=_install(name))
        if isinstance(content, SequenceNode):
            fail(place.file, line_of(content), f"{name} takes text or a mapping, not a list")
        if name.rpartition(".")[2] == "fetch":
            self.fetches.append((place.file, line_of(key_node)))
        self._included(place, name, content, node, handler)
        self._arguments(place, name, content, node)

    def _arguments(self, place: _Place, name: str, content: Node, node: MappingNode) -> None:
        """What fails only when the task is executed: an error, unless that is provided for."""
        if name in self._own or place.collections:
            return
        guarded = place.guarded or _guarded(node)
        for problem in arguments.problems(name, content, node, defaults=self._defaults):
            self._add(place, problem.line, problem.code, problem.message, guarded=guarded)
        absent = missing(
            name, content, node, file=place.file, base=place.base, role=place.role, files=self._files.keys()
        )
        if absent is not None:
            line, wanted = absent
            guarded = guarded or self._makes_files
            self._add(place, line, "file", f"there is no file {wanted!r}", guarded=guarded, hint=self._outside())

    def _add(
        self, place: _Place, line: int, code: str, message: str, *, guarded: bool = False, hint: str | None = None
    ) -> None:
        self._findings.add(Finding(place.file, line, "warning" if guarded else "error", code, message, hint))

    def _is_module(self, place: _Place, name: str) -> bool:
        return self._words.is_module(name, self._own) or (place.collections and "." not in name)

    def _action(self, place: _Place, node: MappingNode, action: Node, others: list[str]) -> None:
        """The old form: `action: copy src=a dest=b`, or a mapping with `module`."""
        text = scalar(get(action, "module") if isinstance(action, MappingNode) else action)
        if not text or not text.strip():
            fail(place.file, line_of(action), "action has to name a task module", hint="action: command uptime")
        name = text.split()[0]
        if others:
            fail(place.file, line_of(node), f"two task modules in one task: {name!r} and {others[0]!r}")
        if "{{" not in text and not self._is_module(place, name):
            fail(place.file, line_of(action), self._unknown_module(name, frozenset()), hint=_install(name))

    def _too_many(self, place: _Place, named: list[tuple[str, Node]], keywords: frozenset[str]) -> None:
        for key, key_node in named:
            if not self._is_module(place, key):
                known = keywords | self._words.builtin
                fail(place.file, line_of(key_node), _unknown("neither a keyword nor a task module:", key, known))
        names = " and ".join(repr(key[:MAX_SHOWN]) for key, _ in named[:3])
        fail(place.file, line_of(named[1][1]), f"two task modules in one task: {names}", hint="begin a new task with -")

    def _unknown_module(self, name: str, keywords: frozenset[str]) -> str:
        short = arguments.short_name(name)
        for known in (self._words.builtin | self._own, keywords, self._words.routed):
            if close := nearest(short, known):
                return f"unknown task module {name[:MAX_SHOWN]!r}: the nearest is {close!r}"
        return f"unknown task module {name[:MAX_SHOWN]!r}"

    # --- included files and roles ---------------------------------------------------------------

    def _included(self, place: _Place, name: str, content: Node, node: MappingNode, handler: bool) -> None:
        short = name.rpartition(".")[2]
        if short in _TASK_FILES:
            named = scalar(get(content, "file") if isinstance(content, MappingNode) else content)
            self._task_file(place, short, named, content, handler)
        elif short in _ROLE_TASKS:
            if isinstance(content, MappingNode):
                role = scalar(get(content, "name")) or scalar(get(content, "role"))
            else:
                given = _ROLE_NAME.search(scalar(content) or "")
                role = given[1] if given else None
            if role is not None:
                self._role(place, role, line_of(content))
            elif not self._defaults and get(node, "args") is None:
                fail(place.file, line_of(content), f"{name} needs the name of a role", hint="name: ROLE")

    def _task_file(self, place: _Place, module: str, named: str | None, node: Node, handler: bool) -> None:
        words = (named or "").split()
        if not words or "{{" in words[0]:
            return
        wanted = words[0].removeprefix("file=")
        roots = [posixpath.dirname(place.file), place.base]
        if place.role is not None:
            roots += [posixpath.join(place.role, each) for each in ("tasks", "handlers", "")]
        roots += [posixpath.join(place.base, "tasks")]
        for root in roots:
            path = posixpath.normpath(posixpath.join(root, wanted))
            if path in self._files:
                self._task_list(_Place(path, place.base, place.role, place.collections), handler)
                return
        if module == "import_tasks":
            fail(place.file, line_of(node), f"there is no file {wanted!r} to import", hint=self._outside())
        if not wanted.startswith("/"):
            message = f"there is no file {wanted!r} to include"
            self._add(place, line_of(node), "file", message, guarded=True, hint=self._outside())

    def _task_list(self, place: _Place, handlers: bool) -> None:
        if (place.file, place.role or "") in self._seen:
            return
        self._seen.add((place.file, place.role or ""))
        self._tasks(place, self._load(place.file), handlers=handlers, called="a file of tasks")

    def _roles(self, place: _Place, node: Node | None) -> None:
        if node is None or is_null(node):
            return
        if not isinstance(node, SequenceNode):
            fail(place.file, line_of(node), f"roles has to be a list, found {kind(node)}")
        for each in node.value:
            entry = scalar(each)
            if isinstance(each, MappingNode):
                entry = scalar(get(each, "role")) or scalar(get(each, "name"))
            with self._findings.going_on():
                if not entry:
                    fail(place.file, line_of(each), f"expected a role's name, found {kind(each)}")
                self._role(place, entry, line_of(each))

    def _role(self, place: _Place, name: str, line: int) -> None:
        """Check a role that came along; another may be installed on the node."""
        known = False
        for root in (posixpath.join(place.base, "roles", name), posixpath.join(place.base, name), f"roles/{name}"):
            directory = posixpath.normpath(root)
            known = known or any(path.startswith(f"{directory}/") for path in self._files)
            for section in ("tasks", "handlers"):
                for suffix in (".yml", ".yaml"):
                    path = f"{directory}/{section}/main{suffix}"
                    if path in self._files:
                        inside = _Place(
                            path, place.base, directory, True if place.collections else self._meta(directory)
                        )
                        self._task_list(inside, section == "handlers")
        if not known:
            self.absent.append((place.file, line, name))
            if "{{" not in name and name.count(".") < 2:
                message = f"the role {name!r} is not beside the playbook: it has to be installed on the nodes"
                self._add(place, line, "role", message, guarded=True, hint=f"roles/{name}/")

    def _meta(self, directory: str) -> bool:
        """Whether the role searches collections for short names."""
        content = self._files.get(f"{directory}/meta/main.yml", b"")
        return b"collections:" in content


def _guarded(node: MappingNode) -> bool:
    """Whether the playbook provides for the failure of what it says here, or does not always come to it."""
    return any(get(node, keyword) is not None for keyword in ("when", "ignore_errors", "failed_when"))


def _unknown(what: str, word: str, known: frozenset[str]) -> str:
    close = nearest(word, known)
    return f"{what} {word[:MAX_SHOWN]!r}" + (f": the nearest is {close!r}" if close else "")


def _install(name: str) -> str | None:
    return "modules of a collection are named in full: namespace.collection.module" if "." in name else None

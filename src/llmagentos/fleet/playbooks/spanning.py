"""Whether a playbook spans nodes: something in it has hosts wait for, act for or know of each other.

If nothing does, each node runs it by itself, which is faster. Found by looking for the words in the text of
everything that may be read while it runs: also what is included by a name that only the node knows. A word too
many costs time, one too few would change results.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llmagentos.fleet.playbooks.document import fail
from llmagentos.fleet.playbooks.patterns import IMPLICIT

_KEYWORDS = re.compile(
    rb"\b(serial|max_fail_percentage|any_errors_fatal|throttle|run_once|delegate_to|delegate_facts|local_action)"
    rb"\s*:\s*(?P<value>[^,}\n#]*)"
)
_MODULES = re.compile(rb"(?:^|[\s{,-])(?:ansible\.(?:builtin|legacy)\.)?(add_host|group_by|pause)\s*:", re.M)
_META = re.compile(rb"\bmeta\s*:\s*['\"]?(end_play|end_batch|clear_host_errors)\b")
_VARIABLES = re.compile(
    rb"\b(hostvars(?!\s*\[\s*inventory_hostname\s*\])|ansible_play_hosts(?:_all)?|ansible_play_batch|play_hosts"
    rb"|ansible_current_hosts|ansible_failed_hosts)\b"
)
_PLAYBOOK = re.compile(rb"^[ \t]*(?:-[ \t]+)?(?:hosts|import_playbook|ansible\.builtin\.import_playbook)\s*:", re.M)
_COMMENT = re.compile(rb"^[ \t]*#.*$", re.M)
_OFF = frozenset({"", "false", "no", "omit", "null", "~", "off"})
_GROUP = re.compile(r"groups(?:\.(\w+)|\[\s*['\"]([^'\"]+)['\"]\s*\])")
_OWN = re.compile(r"\{\{\s*inventory_hostname\s*")  # as far as a keyword's value is read
_SELF = re.compile(r"\{\{\s*inventory_hostname\s*\}\}")
_YAML = (".yml", ".yaml", ".json")

# Each node would make its own of what one controller makes for all.
_PER_NODE = re.compile(
    rb"(?:lookup|query|q)\(\s*['\"](?:ansible\.builtin\.)?password['\"]\s*,\s*['\"](?!/dev/null)|\bwith_password\s*:"
)
_SHUFFLE = re.compile(rb"^[ \t]*(?:-[ \t]+)?order\s*:\s*['\"]?shuffle\b", re.M)
_STRATEGY = re.compile(rb"^[ \t]*(?:-[ \t]+)?strategy\s*:\s*['\"]?(?:ansible\.builtin\.)?([\w.{]+)", re.M)
_STRATEGIES = frozenset({b"linear", b"free", b"host_pinned"})


@dataclass(frozen=True, slots=True)
class Found:
    """A word that makes a playbook span nodes, and where it is. `firm`: without it results would be others."""

    file: str
    line: int
    word: str
    firm: bool = True

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word}"


@dataclass(frozen=True, slots=True)
class Needs:
    """What the text of a playbook says of hosts together."""

    found: list[Found] = field(default_factory=list)
    delegates: list[tuple[str, int, str]] = field(default_factory=list)
    """File, line and value of each `delegate_to`."""
    makes_groups: bool = False
    """Hosts and groups may come to be while it runs."""


def needs(files: Mapping[str, bytes], read: frozenset[str]) -> Needs:
    """What is found in `files`; `read` are those that certainly count, among them the playbook."""
    result = Needs()
    makes = False
    for path, content in files.items():
        if _counts(path, content, read):
            text = _COMMENT.sub(b"", content)
            result.found.extend(_in_text(path, text))
            result.delegates.extend(_delegates(path, text))
            makes = makes or b"add_host" in text or b"group_by" in text
    return Needs(result.found, result.delegates, makes)


def _counts(path: str, content: bytes, read: frozenset[str]) -> bool:
    if path in read:
        return True
    if path.lower().endswith(_YAML):
        return not _PLAYBOOK.search(content)  # another playbook beside this one
    return b"{{" in content or b"{%" in content


def _in_text(path: str, text: bytes) -> Iterator[Found]:
    yaml = path.lower().endswith(_YAML)
    for match in _KEYWORDS.finditer(text) if yaml else ():
        value = match["value"].decode("utf-8", "replace").strip().strip("'\"").lower()
        if (value not in _OFF and not _OWN.fullmatch(value)) or match[1] == b"serial":
            yield Found(path, _line(text, match.start(1)), match[1].decode())
    for pattern in (_MODULES, _META) if yaml else ():
        for match in pattern.finditer(text):
            yield Found(path, _line(text, match.start(1)), match[1].decode())
    for match in _VARIABLES.finditer(text):
        yield Found(path, _line(text, match.start(1)), match[1].decode())


def _delegates(path: str, text: bytes) -> Iterator[tuple[str, int, str]]:
    if path.lower().endswith(_YAML):
        for match in re.finditer(rb"\bdelegate_to\s*:[ \t]*(\"[^\"\n]*\"|'[^'\n]*'|[^,}\n#]*)", text):
            value = match[1].decode("utf-8", "replace").strip().strip("'\"")
            if value:
                yield path, _line(text, match.start()), value


def _line(text: bytes, offset: int) -> int:
    return text.count(b"\n", 0, offset) + 1


def refuse(files: Mapping[str, bytes], read: frozenset[str]) -> None:
    """Raise `PlaybookError`, with file:line, for what cannot be done with several nodes."""
    for path, content in files.items():
        if not _counts(path, content, read) or not path.lower().endswith(_YAML):
            continue
        text = _COMMENT.sub(b"", content)
        for match in _PER_NODE.finditer(text):
            if not _once(text, match.start()):
                fail(
                    path,
                    _line(text, match.start()),
                    "the lookup `password` keeps what it makes in a file, and each node would make another one",
                    hint="make it in one task with run_once and set_fact, or give it with -e",
                )
        if shuffled := _SHUFFLE.search(text):
            line = _line(text, shuffled.start())
            fail(path, line, "order: shuffle: the nodes could not agree on an order", hint="order: sorted")
        for match in _STRATEGY.finditer(text):
            if match[1] not in _STRATEGIES and path in read:
                name = match[1].decode("utf-8", "replace")
                line = _line(text, match.start(1))
                fail(path, line, f"strategy: {name} cannot be had on several nodes", hint="linear, free or host_pinned")


def _once(text: bytes, offset: int) -> bool:
    """Whether the task around `offset` says `run_once`: as far as the text from its dash to the next one goes."""
    begin = text.rfind(b"\n- ", 0, offset)
    inner = max(begin, text.rfind(b"\n  - ", 0, offset), text.rfind(b"\n    - ", 0, offset))
    ends = [at for mark in (b"\n- ", b"\n  - ", b"\n    - ") if (at := text.find(mark, offset)) >= 0]
    return b"run_once" in text[max(inner, 0) : min(ends, default=len(text))]


def assistants(
    found: Needs, hosts: Sequence[str], groups: Mapping[str, Sequence[str]], nodes: frozenset[str]
) -> set[str]:
    """The hosts that tasks may be delegated to, of those that are nodes. Raises `PlaybookError` for unknown ones."""
    wanted: set[str] = set()
    for file, line, value in found.delegates:
        if "{{" not in value and "{%" not in value:
            if value in IMPLICIT:
                continue
            if value not in hosts and not found.makes_groups:
                fail(file, line, f"delegate_to: there is no host {value!r} in the inventory")
            if value in hosts and value not in nodes:
                fail(file, line, f"delegate_to: no node has the name {value!r}", hint="`llmctl nodes` lists the nodes")
            wanted |= {value}
            continue
        if _SELF.fullmatch(value):
            continue
        named = [first or second for first, second in _GROUP.findall(value)]
        rest = _GROUP.sub("", value)
        if named and not re.search(r"\b(?:item|hostvars|vars)\b", rest):
            wanted |= {host for group in named for host in groups.get(group, ())}
        else:
            wanted |= set(hosts)
    return wanted & nodes

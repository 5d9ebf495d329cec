"""Ansible's host patterns: `all`, `web:db`, `web:!old`, `web:&live`, `web*`, `web[0]`, `web[1:3]`.

https://docs.ansible.com/ansible/latest/inventory_guide/intro_patterns.html
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence

from llmagentos.core.errors import InvalidInput, nearest

IMPLICIT = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of the machine that runs the playbook, unless the inventory says otherwise."""
MAX_PARTS = 1000
MAX_LENGTH = 255

# Colons separate, except in a subscript and in IPv6 addresses; commas always do.
_SEPARATOR = re.compile(r",|:(?![^\[]*\])")
_SUBSCRIPT = re.compile(r"(?P<name>.+)\[(?P<first>-?\d{1,6})?(?P<range>[:-])?(?P<last>-?\d{1,6})?\]")


class UnknownHost(InvalidInput):
    """A pattern names no host and no group of the inventory."""

    code = "unknown_host"


class Selector:
    """Resolves patterns against `hosts` (in the inventory's order) and `groups` (name to hosts)."""

    def __init__(self, hosts: Sequence[str], groups: Mapping[str, Sequence[str]]) -> None:
        self._hosts = list(hosts)
        self._groups = dict(groups)

    def select(self, patterns: Sequence[str]) -> list[str]:
        """The hosts that `patterns` mean, in the order of the patterns. Raises `UnknownHost`, `InvalidInput`.

        As in Ansible, intersections and exclusions apply after everything else, wherever they stand.
        """
        parts = split(patterns)
        if not parts:
            raise InvalidInput("no host is named", hint="hosts: all")
        plain = [part for part in parts if part[0] not in "!&"] or ["all"]
        found = list(dict.fromkeys(host for part in plain for host in self._one(part)))
        for part in parts:
            if part[0] == "&":
                both = set(self._one(part[1:]))
                found = [host for host in found if host in both]
        for part in parts:
            if part[0] == "!":
                without = set(self._one(part[1:]))
                found = [host for host in found if host not in without]
        return found

    def _one(self, pattern: str) -> list[str]:
        if len(pattern) > MAX_LENGTH or pattern.count("*") > 8:
            raise InvalidInput(f"the host pattern {pattern[:60]!r}... is too complicated")
        if pattern.startswith("~"):
            raise InvalidInput(
                f"the host pattern {pattern!r} is a regular expression: those are not taken here",
                hint="use wildcards: web*",
            )
        if pattern in ("all", "*"):
            return self._hosts
        if pattern in self._groups:
            return list(self._groups[pattern])
        if pattern in self._hosts or pattern in IMPLICIT:
            return [pattern]
        subscript = _SUBSCRIPT.fullmatch(pattern)
        if subscript and (subscript["first"] or subscript["last"] or subscript["range"]):
            return _slice(self._one(subscript["name"]), subscript)
        return self._wild(pattern) if any(char in pattern for char in "*?[") else self._unknown(pattern)

    def _wild(self, pattern: str) -> list[str]:
        matches: Callable[[str], object] = re.compile(fnmatch.translate(pattern)).match
        groups = [host for name, hosts in self._groups.items() if matches(name) for host in hosts]
        return list(dict.fromkeys([*groups, *(host for host in self._hosts if matches(host))]))

    def _unknown(self, pattern: str) -> list[str]:
        known = [*self._groups, *self._hosts]
        close = nearest(pattern, known)
        shown = ", ".join(sorted(set(known))[:10]) or "none"
        raise UnknownHost(
            f"unknown host or group {pattern!r}",
            hint=f"did you mean {close!r}?" if close else f"the inventory has: {shown}",
            host=pattern,
        )


def split(patterns: Sequence[str]) -> list[str]:
    """The parts of patterns that are joined by `:` or `,`. Raises `InvalidInput` for an exclusion of nothing."""
    parts: list[str] = []
    for pattern in patterns:
        whole = pattern.strip()
        pieces = [whole] if whole in IMPLICIT else _SEPARATOR.split(whole)
        parts += [piece.strip() for piece in pieces if piece.strip()]
    if len(parts) > MAX_PARTS:
        raise InvalidInput(f"{len(parts)} host patterns are too many: at most {MAX_PARTS}")
    for part in parts:
        if not part.strip("!&"):
            raise InvalidInput(f"the host pattern {part!r} names nothing")
    return parts


def _slice(hosts: list[str], subscript: re.Match[str]) -> list[str]:
    first, last = subscript["first"], subscript["last"]
    if not subscript["range"]:
        index = int(first or last or 0)
        return [hosts[index]] if -len(hosts) <= index < len(hosts) else []
    begin = int(first) if first else 0
    end = int(last) if last else len(hosts) - 1
    # Ansible's ranges include their end.
    return hosts[begin:] if end == -1 else hosts[begin : end + 1]

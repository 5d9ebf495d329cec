"""An inventory as it is put together: hosts, groups, their variables, and where each was named."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from typing import Any, NoReturn

from llmagentos.api.jobs import Inventory, InventoryGroup
from llmagentos.fleet.playbooks.document import InventoryError

MAX_HOSTS = 10_000
MAX_GROUPS = 2_000
MAX_TEXT = 4 * 1024 * 1024
"""Characters of all hosts' variables: one line can give the same ones to thousands of hosts."""
_RESERVED = ("all", "ungrouped")


class Builder:
    """Collects what the sources say. Every method takes the place, for messages."""

    def __init__(self) -> None:
        self._weight = 0
        self.hosts: dict[str, dict[str, Any]] = {}
        self.places: dict[str, str] = {}
        self.members: dict[str, dict[str, None]] = {name: {} for name in _RESERVED}
        self.children: dict[str, dict[str, None]] = {name: {} for name in _RESERVED}
        self.variables: dict[str, dict[str, Any]] = {name: {} for name in _RESERVED}

    def group(self, name: str, file: str, line: int) -> str:
        """Make the group when it is new; its name."""
        if name not in self.members:
            if not name or any(char in name for char in " :,!&[]{}\n"):
                fault(file, line, f"{name[:80]!r} cannot be a group's name")
            if len(self.members) >= MAX_GROUPS:
                fault(file, line, f"more than {MAX_GROUPS} groups")
            self.members[name], self.children[name], self.variables[name] = {}, {}, {}
        return name

    def host(self, pattern: str, group: str, variables: dict[str, Any], file: str, line: int) -> None:
        """Put a host, or a range of them (`web[01:20]`), into `group`."""
        weight = sum(len(key) + len(str(given)) for key, given in variables.items())
        for name in expand(pattern, file, line):
            self._weight += weight
            if self._weight > MAX_TEXT:
                fault(file, line, f"the hosts' variables take more than {MAX_TEXT} characters", hint="use group_vars")
            if not name or any(char in name for char in " ,!&[]{}\n\t"):
                fault(file, line, f"{name[:80]!r} cannot be a host's name")
            if name not in self.hosts and len(self.hosts) >= MAX_HOSTS:
                fault(file, line, f"more than {MAX_HOSTS} hosts")
            self.hosts.setdefault(name, {}).update(variables)
            self.places.setdefault(name, f"{file}:{line}")
            self.members[group][name] = None

    def child(self, group: str, child: str, file: str, line: int) -> None:
        """Make `child` a part of `group`. Raises when the group would hold itself."""
        if group == child or group in self._below(child):
            fault(file, line, f"the group {child!r} would hold itself")
        self.children[group][child] = None

    def _below(self, name: str) -> set[str]:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            for child in self.children.get(waiting.pop(), ()):
                if child not in seen:
                    seen.add(child)
                    waiting.append(child)
        return seen

    def groups(self) -> dict[str, list[str]]:
        """Each group's hosts, those of its children included, in the inventory's order."""
        order = {name: index for index, name in enumerate(self.hosts)}
        found: dict[str, list[str]] = {}
        for name in self.members:
            hosts = set(self.members[name])
            for child in self._below(name):
                hosts |= self.members[child].keys()
            found[name] = sorted(hosts, key=order.__getitem__)
        grouped = {host for name, hosts in found.items() if name not in _RESERVED for host in hosts}
        found["ungrouped"] = [host for host in self.hosts if host not in grouped]
        found["all"] = list(self.hosts)
        return found

    def wire(self, directory: str | None) -> Inventory:
        """As nodes get it."""
        groups = {
            name: InventoryGroup(list(self.members[name]), list(self.children[name]), self.variables[name])
            for name in self.members
        }
        groups["all"] = InventoryGroup(
            list(self.hosts),
            [name for name in self.members if name not in _RESERVED],
            self.variables["all"],
        )
        return Inventory(groups, {name: found for name, found in self.hosts.items() if found}, directory)


def fault(file: str, line: int, message: str, *, hint: str | None = None) -> NoReturn:
    """Raise `InventoryError` for a place."""
    raise InventoryError(f"{file}:{line}: {message}", hint=hint, file=file, line=line)


def expand(pattern: str, file: str, line: int) -> Iterator[str]:
    """The names that `web[01:20].x`, `db[a:f]` or `n[0:10:2]` stand for."""
    pieces: list[list[str]] = []
    rest, total = pattern, 1
    while "[" in rest:
        before, _, rest = rest.partition("[")
        inside, closed, rest = rest.partition("]")
        if not closed:
            fault(file, line, f"{pattern[:80]!r}: a range needs its closing bracket")
        names = _range(inside, file, line)
        total *= len(names)
        if total > MAX_HOSTS or len(pieces) > 16:
            fault(file, line, f"{pattern[:80]!r} stands for more than {MAX_HOSTS} hosts")
        pieces += [[before], names]
    return ("".join(parts) for parts in itertools.product(*pieces, [rest]))


def _range(text: str, file: str, line: int) -> list[str]:
    bounds = text.split(":")
    if len(bounds) in (2, 3):
        first, last, step = bounds[0] or "0", bounds[1], bounds[2] if len(bounds) == 3 else "1"
        if _digits(last) and _digits(first) and _digits(step) and int(step) > 0 and int(first) <= int(last):
            width = len(first) if first.startswith("0") and len(first) > 1 else 0
            if (int(last) - int(first)) // int(step) >= MAX_HOSTS:
                fault(file, line, f"[{text[:60]}] stands for more than {MAX_HOSTS} hosts")
            return [str(n).zfill(width) for n in range(int(first), int(last) + 1, int(step))]
        letters = string.ascii_letters
        if first in letters and last in letters and len(first) == len(last) == 1 and _digits(step) and int(step) > 0:
            names = letters[letters.index(first) : letters.index(last) + 1 : int(step)]
            if names:
                return list(names)
    fault(file, line, f"[{text[:60]}] is no range", hint="like [01:20], [a:f] or [0:10:2]")


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10

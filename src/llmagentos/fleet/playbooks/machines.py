"""The nodes as an inventory without `-i` has them: their names, the groups that their facts and labels make."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import overload

FILTER = "filter:"
"""What a limit begins with that is an expression over facts rather than a host pattern."""
_GROUPED = re.compile(rb"group_names|\bgroups\b|\b(?:os|arch|label)_|\bgpu\b")


class Machines(Sequence[str]):
    """Names of nodes. `groups` are by node; `matching` names those that an expression over facts matches."""

    def __init__(self, groups: Mapping[str, Sequence[str]], matching: Callable[[str], set[str]]) -> None:
        self._names = list(groups)
        self.groups = groups
        self.matching = matching

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._names[index]

    def __len__(self) -> int:
        return len(self._names)


def groups_of(nodes: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Each node's groups; none for plain names."""
    return nodes.groups if isinstance(nodes, Machines) else dict.fromkeys(nodes, ())


def matching(nodes: Sequence[str], expression: str) -> set[str]:
    """The nodes that `expression` matches. Raises `FilterError`."""
    return nodes.matching(expression) if isinstance(nodes, Machines) else set()


def mentions_groups(texts: Iterable[bytes]) -> bool:
    """Whether a playbook's files or their names could ask for these groups: else nodes need not be told of them."""
    return any(_GROUPED.search(text) for text in texts)

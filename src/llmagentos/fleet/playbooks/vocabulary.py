"""The words that playbooks may use: task modules and keywords, as ansible-core has them (see scripts/)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from functools import cache
from importlib import resources

import msgspec

_BUILTIN = ("ansible.builtin.", "ansible.legacy.")
_PLUGIN_DIRECTORIES = frozenset({"library", "modules", "action_plugins", "action"})


class Vocabulary(msgspec.Struct, frozen=True):
    """`builtin` modules come with ansible-core, `routed` names lead to collections."""

    ansible_core: str
    builtin: frozenset[str]
    routed: frozenset[str]
    keywords: dict[str, frozenset[str]]

    def is_module(self, name: str, own: frozenset[str]) -> bool:
        """Whether a task module of this name can exist; `own` are those that the playbook brings along.

        A name within a collection is left to the node: only there is known what is installed.
        """
        for prefix in _BUILTIN:
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                break
        else:
            if name.count(".") >= 2:
                return all(name.split("."))
        return name in self.builtin or name in own or name in self.routed


@cache
def vocabulary() -> Vocabulary:
    """The words, read once."""
    text = resources.files(__package__).joinpath("known.json").read_bytes()
    return msgspec.json.decode(text, type=Vocabulary)


def own_modules(paths: Iterable[str]) -> frozenset[str]:
    """Task modules that stand in the playbook's directory: `library/`, `action_plugins/`, roles, collections."""
    found = set()
    for path in paths:
        directory, name = posixpath.split(path)
        if posixpath.basename(directory) in _PLUGIN_DIRECTORIES:
            found.add(name.partition(".")[0].removeprefix("_"))  # _name.py is a deprecated module `name`
    return frozenset(found)

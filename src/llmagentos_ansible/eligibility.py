# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""Which modules go to the fork server and which tasks stay in the runner, and why others do not. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SWITCH = "llmagentos_fork_modules"
"""The variable that, when false for a host, a play or a task, leaves all to ansible-core's own ways."""

_AT_START = re.compile(r"(PYTHON|LD_|LC_|LANG|OPENSSL_|MALLOC_|GLIBC_|GCONV_)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Execution:
    """What is known of one module execution before it begins."""

    server: bool = True  # there is a fork server
    allowed: bool = True  # the variable `llmagentos_fork_modules`
    connection: str = "local"
    becomes: str | None = None  # the user that it is to run as, where that is another one
    asynchronous: bool = False
    python: bool = True  # a new-style module in Python
    shebang: str = ""  # "#!" and the interpreter that the host's variables name, with arguments
    own_interpreter: str = ""
    at_start: frozenset[str] = frozenset()  # environment variables only read at Python's start that differ
    unnamed: frozenset[str] = frozenset()  # "environment" names that a shell does not take as such
    kept: bool = False  # ansible-core is to keep the files that it makes
    debugged: bool = False  # under a debugger or measured by coverage
    overridden: frozenset[str] = frozenset()  # names of ansible-core's module_utils that the playbook replaces


# The first row that is true counts.
NOT_TO_FORK: tuple[tuple[Callable[[Execution], bool], str], ...] = (
    (lambda e: not e.server, "there is no fork server"),
    (lambda e: not e.allowed, f"{SWITCH} is false"),
    (lambda e: e.connection != "local", "the connection is {e.connection}"),
    (lambda e: e.asynchronous, "it is asynchronous"),
    (lambda e: e.becomes is not None, "it becomes the user {e.becomes}"),
    (lambda e: not e.python, "it is no new-style Python module"),
    (lambda e: e.shebang != f"#!{e.own_interpreter}", "its interpreter is {e.shebang}"),
    (lambda e: bool(e.at_start), "the environment sets what is read at Python's start: {at_start}"),
    (lambda e: bool(e.unnamed), "the environment has names that are none: {unnamed}"),
    (lambda e: e.kept, "remote files are kept"),
    (lambda e: e.debugged, "a debugger or coverage is configured"),
    (lambda e: bool(e.overridden), "the playbook has its own module_utils: {overridden}"),
)


def reason_not_to_fork(e: Execution) -> str | None:
    """Why this execution goes ansible-core's own way; None when it goes to the fork server."""
    for holds, text in NOT_TO_FORK:
        if holds(e):
            sets = {name: ", ".join(sorted(getattr(e, name))) for name in ("at_start", "unnamed", "overridden")}
            return text.format(e=e, **sets)
    return None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known of a task before it is executed on a host."""

    allowed: bool = True  # the variable `llmagentos_fork_modules`
    known: bool = True  # one of ansible-core's own actions, of those that keep to themselves
    own_plugins: bool = True  # no plugins but ansible-core's: beside the playbook, on this machine, of collections
    connection: object = "local"
    elsewhere: bool = False  # delegated
    limited: bool = False  # asynchronous or with a time limit: it may have to be given up
    debugged: bool = False  # under the task debugger


# The first row that is true counts.
TO_FORK: tuple[tuple[Callable[[Circumstances], bool], str], ...] = (
    (lambda c: not c.allowed, f"{SWITCH} is false"),
    (lambda c: not c.known, "its action may need a process of its own"),
    (lambda c: not c.own_plugins, "there are plugins that are not ansible-core's"),
    (lambda c: c.connection != "local", "the connection is {c.connection}"),
    (lambda c: c.elsewhere, "it is delegated"),
    (lambda c: c.limited, "it is asynchronous or has a time limit"),
    (lambda c: c.debugged, "it may be debugged"),
)


def reason_to_fork(c: Circumstances) -> str | None:
    """Why the task gets a process of its own; None when it is executed in the runner."""
    return next((text.format(c=c) for holds, text in TO_FORK if holds(c)), None)


def differs_at_start(began_with: Mapping[str, str], wanted: Mapping[str, str]) -> frozenset[str]:
    """The variables that count only when an interpreter starts and that are not as this one began with."""
    names = {name for name in (*began_with, *wanted) if _AT_START.match(name)}
    return frozenset(name for name in names if began_with.get(name) != wanted.get(name))


def not_names(environment: Mapping[str, object]) -> frozenset[str]:
    """The names that a shell does not take as a variable's in front of a command."""
    return frozenset(str(name) for name in environment if not _NAME.fullmatch(str(name)))

"""Which modules run in forks and which tasks in the runner: every row of the two tables, and their order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmagentos_ansible.eligibility import (
    NOT_TO_FORK,
    TO_FORK,
    Circumstances,
    Execution,
    differs_at_start,
    not_names,
    reason_not_to_fork,
    reason_to_fork,
)

PYTHON = "/venv/bin/python"
GOOD = Execution(shebang=f"#!{PYTHON}", own_interpreter=PYTHON)

MODULES: tuple[tuple[dict[str, object], str], ...] = (
    ({"server": False}, "there is no fork server"),
    ({"allowed": False}, "llmagentos_fork_modules is false"),
    ({"connection": "ssh"}, "the connection is ssh"),
    ({"asynchronous": True}, "it is asynchronous"),
    ({"becomes": "nobody"}, "it becomes the user nobody"),
    ({"python": False}, "it is no new-style Python module"),
    ({"shebang": "#!/usr/bin/python3"}, "its interpreter is #!/usr/bin/python3"),
    ({"at_start": frozenset({"LANG", "LC_ALL"})}, "the environment sets what is read at Python's start: LANG, LC_ALL"),
    ({"unnamed": frozenset({"a b"})}, "the environment has names that are none: a b"),
    ({"kept": True}, "remote files are kept"),
    ({"debugged": True}, "a debugger or coverage is configured"),
    ({"overridden": frozenset({"basic"})}, "the playbook has its own module_utils: basic"),
)
TASKS: tuple[tuple[dict[str, object], str], ...] = (
    ({"allowed": False}, "llmagentos_fork_modules is false"),
    ({"known": False}, "its action may need a process of its own"),
    ({"own_plugins": False}, "there are plugins that are not ansible-core's"),
    ({"connection": "ssh"}, "the connection is ssh"),
    ({"elsewhere": True}, "it is delegated"),
    ({"limited": True}, "it is asynchronous or has a time limit"),
    ({"debugged": True}, "it may be debugged"),
)


def test_what_is_as_usual() -> None:
    assert reason_not_to_fork(GOOD) is None
    assert reason_to_fork(Circumstances()) is None


@pytest.mark.parametrize(("but", "reason"), MODULES)
def test_a_module_that_is_not_forked(but: dict[str, object], reason: str) -> None:
    assert reason_not_to_fork(replace(GOOD, **but)) == reason  # type: ignore[arg-type]


@pytest.mark.parametrize(("but", "reason"), TASKS)
def test_a_task_that_is_forked(but: dict[str, object], reason: str) -> None:
    assert reason_to_fork(replace(Circumstances(), **but)) == reason  # type: ignore[arg-type]


def test_every_row_is_tested_and_the_first_one_counts() -> None:
    assert len(MODULES) == len(NOT_TO_FORK)
    assert len(TASKS) == len(TO_FORK)
    several = replace(GOOD, python=False, asynchronous=True, kept=True)
    assert reason_not_to_fork(several) == "it is asynchronous"


def test_the_environment_at_the_start_of_python() -> None:
    began = {"LANG": "C.UTF-8", "HOME": "/root", "PYTHONPATH": "/a"}
    assert differs_at_start(began, {**began, "HOME": "/x", "NEW": "1", "LONG_NAME": "x"}) == set()
    assert differs_at_start(began, {"LANG": "C", "PYTHONPATH": "/a"}) == {"LANG"}
    assert differs_at_start(began, {**began, "LD_PRELOAD": "x.so"}) == {"LD_PRELOAD"}
    assert differs_at_start(began, {"HOME": "/root"}) == {"LANG", "PYTHONPATH"}


def test_names_that_a_shell_takes() -> None:
    assert not_names({"A": 1, "_b2": 2}) == set()
    assert not_names({"a b": 1, "1a": 2, "": 3, "a;b": 4}) == {"a b", "1a", "", "a;b"}

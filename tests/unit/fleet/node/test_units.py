"""Module units: what is refused, and what counts as a change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmagentos.core.errors import ConfigError
from llmagentos.fleet.node.units import Scanner, parse


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_whole_unit(tmp_path: Path) -> None:
    unit = parse(
        write(tmp_path / "web.yaml", "command: [python, web.py]\nenv: {A: b}\nworkdir: /srv\nwatch: [web.py]\n")
    )
    assert (unit.command, unit.env, unit.workdir, unit.watch) == (["python", "web.py"], {"A": "b"}, "/srv", ["web.py"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        ("comand: [x]\n", "did you mean 'command'"),
        ("command: python\n", r"web.yaml:1: command: expected a list"),
        ("command: []\n", "at least 1"),
        ("command: [x]\nenv:\n  PORT: 80\n", r"web.yaml:3: env.PORT: expected a string, not a whole number 80"),
        ("command: [x\n", "not YAML"),
        ("command: [x]\n\u0000", "not YAML"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse(write(tmp_path / "web.yaml", text))


def test_a_name_that_is_no_module_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="letters"):
        parse(write(tmp_path / "-rf.yaml", "command: [x]\n"))


def test_a_fault_in_one_unit_leaves_the_others(tmp_path: Path) -> None:
    write(tmp_path / "good.yaml", "command: [x]\n")
    write(tmp_path / "bad.yaml", "command: 1\n")
    write(tmp_path / "notes.txt", "no unit\n")
    found = Scanner(tmp_path).scan()
    assert set(found) == {"good", "bad"}
    assert found["good"].unit is not None
    assert "bad.yaml:1" in (found["bad"].fault or "")


def test_what_changes_a_version(tmp_path: Path) -> None:
    units = tmp_path / "modules.d"
    units.mkdir()
    program = write(tmp_path / "web.py", "1")
    unit = write(units / "web.yaml", "command: [x]\nworkdir: ..\nwatch: [web.py, later.py]\n")
    scanner = Scanner(units)
    first = scanner.scan()["web"]
    assert first.directory is not None
    assert first.directory.resolve() == tmp_path.resolve()
    os.utime(program, (1, 1))
    assert scanner.scan()["web"].version == first.version, "touched, not changed"
    write(program, "2")
    second = scanner.scan()["web"].version
    write(tmp_path / "later.py", "new")
    third = scanner.scan()["web"].version
    write(unit, unit.read_text() + "env: {A: b}\n")
    fourth = scanner.scan()["web"].version
    assert len({first.version, second, third, fourth}) == 4

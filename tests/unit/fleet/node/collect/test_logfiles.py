"""Tailing files that real programs rotate: nothing lost, nothing twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.fleet.node.collect.logfiles import LogFiles
from llmagentos.fleet.node.collect.wanted import Log

STEPS = st.lists(st.sampled_from(["line", "half", "rename", "read", "restart"]), max_size=40)


def _texts(files: LogFiles) -> list[str]:
    return [text for _, text in files.read()]


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_every_line_once_through_renames_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("logs")
    log, positions = directory / "app.log", directory / "positions.json"
    wanted = {"app": Log(files=[str(directory / "app.log")])}
    log.write_text("before\n")
    files = LogFiles(positions)
    files.want(wanted)
    files.save()
    written, read, half = list[str](), list[str](), ""

    def drain() -> None:
        files.want(wanted)
        while found := _texts(files):
            read.extend(found)
        files.save()

    for number, step in enumerate(steps):
        if step == "line":
            with log.open("a") as file:
                file.write(f"{number}\n")
            written.append(f"{half}{number}")
            half = ""
        elif step == "half":
            with log.open("a") as file:
                file.write("x")
            half += "x"
        elif step == "rename" and not half:
            log.rename(directory / f"app.log.{number}")
            log.write_text("")
            drain()  # rotation by renaming is seen while both are there
        elif step == "read":
            drain()
        elif step == "restart":
            drain()
            files.close()
            files = LogFiles(positions)
    drain()
    files.close()
    assert read == written


def test_a_file_cut_in_place_is_read_from_its_begin(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old one\nold two\n")
    files = LogFiles(tmp_path / "positions.json")
    files.want({"a": Log(files=[str(log)])})
    assert _texts(files) == []
    os.truncate(log, 0)
    log.write_text("new\n")
    assert _texts(files) == ["new"]
    files.close()


def test_a_file_that_appears_later_is_read_whole_and_lines_are_bounded(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "positions.json")
    wanted = {"a": Log(files=[str(tmp_path / "*.log")])}
    (tmp_path / "first.log").write_text("at the end\n")
    files.want(wanted)
    (tmp_path / "later.log").write_text("one\n" + "y" * 300_000 + "\n\xff\n")
    files.want(wanted)
    found = []
    while texts := _texts(files):
        found += texts
    assert found[0] == "one"
    assert max(map(len, found)) <= 8192
    assert len(found) >= 3
    files.close()

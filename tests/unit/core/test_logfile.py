"""Logs are kept within their size, and stay as they are when there is no room for a copy."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from llmagentos.core import logfile


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (path := tmp_path / "x.log").write_text("newest")
    for number, text in ((1, "newer"), (2, "old")):
        logfile.numbered(path, number).write_text(text)
    return path


def texts(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_the_oldest_goes_and_the_newest_is_cut_to_nothing(log: Path) -> None:
    assert not logfile.rotate(log, most_bytes=6, files=2)
    assert logfile.rotate(log, most_bytes=5, files=2)
    assert texts(log.parent) == {"x.log": "", "x.log.1": "newest", "x.log.2": "newer"}
    assert logfile.numbered(log, 1).stat().st_mode & 0o777 == 0o600
    assert not logfile.rotate(log.with_name("none"), most_bytes=0, files=2)


def test_a_full_disk_takes_nothing_away(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = texts(log.parent)

    def full(_: Path, copy: Path) -> NoReturn:
        copy.write_text("new")
        raise OSError(errno.ENOSPC, "No space left on device", str(copy))

    monkeypatch.setattr(shutil, "copyfile", full)
    for _ in range(3):
        assert not logfile.rotate(log, most_bytes=5, files=2)
    assert texts(log.parent) == before

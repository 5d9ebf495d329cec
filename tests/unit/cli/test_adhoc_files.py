"""Files that the task of `llmctl exec` names: which go along, under which name, and which are refused."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from llmagentos.cli import adhoc_files
from llmagentos.cli.adhoc_files import taken_along
from llmagentos.cli.pack import pack
from llmagentos.core.errors import InvalidInput, TooLarge


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where the user is."""
    directory = tmp_path / "here"
    (directory / "files").mkdir(parents=True)
    (directory / "app.conf").write_text("plain")
    (directory / "a b").write_text("blank")
    (directory / "both").write_text("beside")
    (directory / "files" / "both").write_text("in files")
    (directory / "run.sh").write_text("script")
    (tmp_path / "up.conf").write_text("above")
    return directory


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """The directory that is packed."""
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def packed(directory: Path) -> dict[str, str]:
    """What really goes to the nodes."""
    with tarfile.open(fileobj=io.BytesIO(pack(directory)[1])) as archive:
        return {member.name: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("module", "value", "said", "sent"),
    [
        ("copy", "src=./app.conf dest=/x", "src=files/app.conf dest=/x", {"files/app.conf": "plain"}),
        ("copy", "dest=/x src=../up.conf mode=0600", "dest=/x src=files/up.conf mode=0600", {"files/up.conf": "above"}),
        ("copy", "src='a b' dest={{ x }}", 'src="files/a b" dest={{ x }}', {"files/a b": "blank"}),
        ("ansible.builtin.copy", "src=both dest=/x", "src=files/both dest=/x", {"files/both": "in files"}),
        ("copy", {"src": "a b", "dest": "/x"}, {"src": "files/a b", "dest": "/x"}, {"files/a b": "blank"}),
        ("template", "src=app.conf dest=/x", "src=templates/app.conf dest=/x", {"templates/app.conf": "plain"}),
        ("unarchive", "src=app.conf copy=yes", "src=files/app.conf copy=yes", {"files/app.conf": "plain"}),
        ("script", "run.sh src=1 'b c'", "files/run.sh src=1 'b c'", {"files/run.sh": "script"}),
        ("script", "chdir=/tmp ./run.sh", "chdir=/tmp files/run.sh", {"files/run.sh": "script"}),
        ("script", "'a b' x", '"files/a b" x', {"files/a b": "blank"}),
        ("script", {"cmd": "run.sh x"}, {"cmd": "files/run.sh x"}, {"files/run.sh": "script"}),
        ("assemble", "src=files remote_src=no", "src=files/files remote_src=no", {"files/files/both": "in files"}),
        ("uri", "url=http://x src=app.conf", "url=http://x src=files/app.conf", {"files/app.conf": "plain"}),
    ],
)  # fmt: skip
def test_the_named_file_goes_along(
    here: Path, into: Path, module: str, value: Any, said: Any, sent: dict[str, str]
) -> None:
    assert taken_along(module, value, into, here=here) == said
    assert packed(into) == sent


@pytest.mark.parametrize(
    ("module", "value"),
    [
        ("copy", "content=x dest=/x"),
        ("copy", "src=/etc/hostname dest=/x remote_src=yes"),
        ("copy", {"src": "/etc/hostname", "dest": "/x", "remote_src": True}),
        ("unarchive", "src=https://example.org/x.tar dest=/x"),
        ("unarchive", "src=/x.tar dest=/x copy=no"),
        ("assemble", "src=/etc/parts dest=/x"),
        ("file", "src=app.conf path=/x state=link"),
        ("shell", "cat src=app.conf"),
        ("copy", {}),
    ],
)
def test_what_is_on_the_node_or_no_file_stays(here: Path, into: Path, module: str, value: Any) -> None:
    assert taken_along(module, value, into, here=here) == value
    assert not list(into.iterdir())


def test_absolute_names_and_a_home(here: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert taken_along("copy", f"src={here}/app.conf dest=/x", into, here=Path("/")) == "src=files/app.conf dest=/x"
    assert taken_along("copy", "src=~/run.sh dest=/x", into, here=Path("/")) == "src=files/run.sh dest=/x"
    assert packed(into) == {"files/app.conf": "plain", "files/run.sh": "script"}


def test_a_directory_goes_along_without_what_is_never_sent(
    here: Path, into: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = here / "tree"
    for name in ("one", "sub/two", "sub/.git/config", "old.pyc"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / "link").symlink_to(here / "app.conf")
    assert taken_along("copy", "src=tree/ dest=/x", into, here=here) == "src=files/tree/ dest=/x"
    assert packed(into) == {"files/tree/one": "one", "files/tree/sub/two": "sub/two", "files/tree/link": "plain"}
    told = capsys.readouterr().err
    assert "sub/.git/" in told
    assert "old.pyc" in told


@pytest.mark.parametrize(
    ("module", "value", "told"),
    [
        ("copy", "src=gone dest=/x", "no file 'gone' here"),
        ("copy", {"src": "a\0b", "dest": "/x"}, "no file"),
        ("copy", f"src={'x' * 300} dest=/x", "no file"),
        ("copy", "src={{ name }} dest=/x", "is a template"),
        ("template", "src=files dest=/x", "is a directory"),
        ("script", "gone.sh x", "no file 'gone.sh' here"),
        ("copy", "src=pipe dest=/x", "neither a file nor a directory"),
        ("copy", "src=empty dest=/x", "no files in"),
        ("copy", "src=.venv dest=/x", "never sent"),
        ("copy", "src=old.pyc dest=/x", "never sent"),
    ],
)
def test_what_cannot_go_along_is_told_before_anything_runs(
    here: Path, into: Path, module: str, value: Any, told: str
) -> None:
    os.mkfifo(here / "pipe")
    (here / "empty").mkdir()
    (here / ".venv").mkdir()
    (here / ".venv" / "x").write_text("")
    (here / "old.pyc").write_text("")
    with pytest.raises(InvalidInput, match=told):
        taken_along(module, value, into, here=here)


def test_what_is_sent_has_bounds(here: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (here / "great").open("wb") as file:
        file.truncate(adhoc_files.MAX_UNPACKED + 1)
    with pytest.raises(TooLarge, match="too large"):
        taken_along("copy", "src=great dest=/x", into, here=here)
    monkeypatch.setattr(adhoc_files, "MAX_FILES", 2)
    (here / "tree").mkdir()
    for name in "abc":
        (here / "tree" / name).write_text("")
    with pytest.raises(TooLarge, match="too large"):
        taken_along("copy", "src=tree dest=/x", into, here=here)
